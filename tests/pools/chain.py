"""A program of two predictors, its rows, and a teacher that is right about most of them. For tests of the pools."""

import re
import time

import dspy

from promptopt.candidate import Candidate
from promptopt.evaluation.evaluate import Evaluator
from promptopt.layout.spec import Layout
from promptopt.lm.protocol import Messages
from promptopt.lm.scripted import ScriptedLM
from promptopt.metrics.base import Fields, Metric, Score
from promptopt.records import DataRow


class Chain(dspy.Module):
    """First says which item a question is about, thinking aloud; then answers."""

    def __init__(self) -> None:
        super().__init__()
        self.find = dspy.ChainOfThought("question -> item")
        self.reply = dspy.Predict("item, question -> answer")

    def forward(self, question: str) -> dspy.Prediction:
        return self.reply(item=self.find(question=question).item, question=question)


class Exact(Metric):
    """1 where the answer is the row's."""

    name = "exact"

    def score(self, example: Fields, prediction: Fields) -> Score:
        right = example.get("answer") == prediction.get("answer")
        return Score(float(right), "right" if right else f"expected {example.get('answer')}")


ROWS = [
    DataRow(id=f"{n:02}", fields={"question": f"What is the code of item{n:02}?", "answer": f"code {n:02}"})
    for n in range(40)
]


def teach(messages: Messages) -> str:
    """Wrong about every third item, unreadable about item 01."""
    text = messages[-1]["content"]
    number = int(re.findall(r"item(\d+)", text)[-1])
    time.sleep(0.0005 * (number % 3))
    if number == 1:
        return "I do not know."
    if "[[ ## item ## ]]\n" not in text:
        thought = f"[[ ## reasoning ## ]]\nit says {number:02}"
        return f"{thought}\n\n[[ ## item ## ]]\nitem{number:02}\n\n[[ ## completed ## ]]"
    said = "unknown" if number % 3 == 0 else f"code {number:02}"
    return f"[[ ## answer ## ]]\n{said}\n\n[[ ## completed ## ]]"


def teacher(lm: ScriptedLM, program: dspy.Module | None = None, layout: Layout | None = None) -> Evaluator:
    """Return the untouched program on `lm`."""
    program = program or Chain()
    return Evaluator(program, Candidate.of_program(program, layout or Layout()), lm, Exact(), ["question"])
