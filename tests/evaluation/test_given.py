"""What reaches a predictor: of a plain one its row, of a program that retrieves its passages; the same when taught."""

import json
from pathlib import Path
from typing import Any

import dspy
import pytest

from programs.rag import RetrieveThenAnswer
from promptopt.candidate import Candidate
from promptopt.distill.dataset import distilled_rows
from promptopt.distill.rollouts import gold_rollouts
from promptopt.errors import ConfigError, DataError
from promptopt.evaluation.evaluate import Evaluator
from promptopt.evaluation.given import GivenInputs
from promptopt.layout.spec import Layout
from promptopt.lm.scripted import ScriptedLM
from promptopt.metrics.registry import get_metric
from promptopt.records import DataRow
from promptopt.retrieval.retriever import Retriever
from promptopt.study.task import program_identity


@pytest.fixture
def program(tmp_path: Path) -> RetrieveThenAnswer:
    pages = [{"doc_id": str(number), "text": f"Room {number} is in hall {number % 7}."} for number in range(30)]
    (tmp_path / "pages.jsonl").write_text("".join(json.dumps(page) + "\n" for page in pages), encoding="utf-8")
    return RetrieveThenAnswer(Retriever(str(tmp_path / "pages.jsonl"), cache_dir=None), k=2)


ROWS = [
    DataRow(id=f"{number:016x}", fields={"question": f"Which hall has room {number}?", "answer": f"{number % 7}"})
    for number in range(30)
]


def test_a_plain_predictor_is_given_its_row() -> None:
    assert GivenInputs(dspy.Predict("question -> answer")).of({"question": "Why?"}) == ("self", {"question": "Why?"})
    assert GivenInputs(dspy.ChainOfThought("q -> a")).of({"q": "Why?"}) == ("predict", {"q": "Why?"})


def test_a_program_that_retrieves_gives_passages(program: RetrieveThenAnswer) -> None:
    given = GivenInputs(program)
    name, inputs = given.of({"question": "room 17"})
    assert (name, inputs["question"]) == ("answer", "room 17")
    assert inputs["passages"][0] == "Room 17 is in hall 3."  # type: ignore[index]
    assert program.answer.forward.__name__ == "forward"
    assert "forward" not in vars(program.answer)  # the program itself was left alone


def test_what_is_trained_on_is_what_is_served(program: RetrieveThenAnswer) -> None:
    candidate = Candidate.of_program(program, Layout())
    metric = get_metric("answer_f1")
    rollouts = gold_rollouts(program, metric, ROWS, ["question"])
    taught = {row.id: row for row in distilled_rows(program, candidate, rollouts, 1.0, 0.2).train}
    lm = ScriptedLM(lambda messages: "[[ ## answer ## ]]\n1\n\n[[ ## completed ## ]]")
    evaluator = Evaluator(program, candidate, lm, metric, ["question"])
    asked = 0
    for row in ROWS:
        if f"{row.id}-0" in taught:
            evaluator.evaluate(row)
            assert [message.model_dump() for message in taught[f"{row.id}-0"].prompt] == lm.history[-1]["messages"]
            asked += 1
    assert asked > 10


def test_other_documents_are_another_program(program: RetrieveThenAnswer, tmp_path: Path) -> None:
    (tmp_path / "other.jsonl").write_text('{"doc_id": "a", "text": "b"}\n', encoding="utf-8")
    other = RetrieveThenAnswer(Retriever(str(tmp_path / "other.jsonl"), cache_dir=None), k=2)
    fewer = RetrieveThenAnswer(program.retriever, k=1)
    assert len({str(program_identity(one)) for one in (program, other, fewer)}) == 3
    assert set(program_identity(dspy.Predict("q -> a"))) == {"signatures", "program"}


class Broken(dspy.Module):
    def __init__(self, error: Exception | None) -> None:
        super().__init__()
        self.error = error
        self.answer = dspy.Predict("question -> answer")

    def forward(self, question: str) -> Any:
        if self.error:
            raise self.error
        return dspy.Prediction(answer="always")


@pytest.mark.parametrize(
    ("error", "message"),
    [(ZeroDivisionError("no"), "failed before it called a predictor: ZeroDivisionError"), (None, "without calling")],
)
def test_a_program_that_reaches_no_predictor_is_named(error: Exception | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        GivenInputs(Broken(error)).of({"question": "Why?"})


def test_an_error_of_our_own_stays_what_it_is() -> None:
    with pytest.raises(DataError, match="gone"):
        GivenInputs(Broken(DataError("gone"))).of({"question": "Why?"})
