"""Tasks that the starter model can do in part: its own kinds of document, with names and values it was not trained on.

On text of other kinds it scores next to nothing under every prompt, and no search could be told from another.
"""

import random
import sys
from pathlib import Path

import dspy

_RECIPE = Path(__file__).resolve().parents[2] / "experiments" / "starter_model"
_FACTS = (5, 8)


class AnswerTwo(dspy.Signature):
    """Answer both questions from the document."""

    document: str = dspy.InputField(desc="text that holds the answers")
    question_1: str = dspy.InputField()
    question_2: str = dspy.InputField()
    answer_1: str = dspy.OutputField(desc="a few words copied from the document")
    answer_2: str = dspy.OutputField(desc="a few words copied from the document")


def answer_two() -> dspy.Module:
    """Return the program: one prediction for both questions."""
    return dspy.Predict(AnswerTwo)


def facts(n: int, seed: int) -> list[dict[str, str]]:
    """Return documents of five to eight facts with one question each."""
    return [
        {"document": document, "question": asked[0][0], "answer": asked[0][1]} for document, asked in _drawn(n, seed, 1)
    ]


def two_facts(n: int, seed: int) -> list[dict[str, str]]:
    """Return the same kind of document with two questions each; `answer` is what the metric reads."""
    return [
        {
            "document": document, "question_1": asked[0][0], "question_2": asked[1][0],
            "answer_1": asked[0][1], "answer_2": asked[1][1],
        }
        for document, asked in _drawn(n, seed, 2)
    ]  # fmt: skip


def _drawn(n: int, seed: int, questions: int) -> list[tuple[str, list[tuple[str, str]]]]:
    if str(_RECIPE) not in sys.path:
        sys.path.insert(0, str(_RECIPE))
    import documents
    import names

    rng = random.Random(f"held out {seed} {questions}")
    drawn = []
    for _ in range(n):
        document = documents.make(rng, rng.randint(*_FACTS), names.NAMES)
        chosen = rng.sample(document.facts, questions)
        drawn.append((document.text, [(rng.choice(fact.questions), fact.answer) for fact in chosen]))
    return drawn
