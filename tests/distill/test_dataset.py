"""Distillation: which answers are taught, and that what is trained on is what is served."""

import random
import re
import time
from pathlib import Path

import dspy
import pytest

from promptopt.candidate import Candidate, PredictorPrompt
from promptopt.distill.dataset import distilled_rows
from promptopt.distill.rollouts import Rollout, candidate_rollouts, gold_rollouts
from promptopt.distill.student import student_candidate
from promptopt.errors import ConfigError, DataError
from promptopt.evaluation.evaluate import Evaluator
from promptopt.evaluation.throughput import Throughput
from promptopt.layout.dspy_adapter import LayoutAdapter
from promptopt.layout.spec import Layout
from promptopt.lm.scripted import ScriptedLM
from promptopt.metrics.registry import get_metric
from promptopt.records import DataRow
from promptopt.rundir import append_jsonl, read_jsonl

PROGRAM = dspy.Predict("document, question -> answer")
METRIC = get_metric("answer_f1")
ROWS = [
    DataRow(id=f"{number:016x}", fields={"document": f"It is {number}.", "question": "What?", "answer": str(number)})
    for number in range(40)
]


def _candidate(**layout: object) -> Candidate:
    return Candidate(layout=Layout.model_validate(layout), predictors={"self": PredictorPrompt(instructions="Answer.")})


@pytest.mark.parametrize(
    "layout", [{}, {"prefill": True}, {"output_style": "json", "prefill": True}, {"output_style": "bare"}]
)
def test_the_trained_text_is_the_served_prompt_and_an_answer_that_parses_back(layout: dict[str, object]) -> None:
    candidate = _candidate(**layout)
    rows = distilled_rows(PROGRAM, candidate, gold_rollouts(PROGRAM, METRIC, ROWS), 1.0, 0.2)
    by_id = {row.id: row for row in ROWS}
    adapter = LayoutAdapter(candidate.layout)
    signature = PROGRAM.signature.with_instructions("Answer.")
    for trained in (*rows.train, *rows.val):
        source = by_id[trained.id.split("-")[0]]
        inputs = {name: source.fields[name] for name in ("document", "question")}
        served = adapter.format(signature, [], inputs)
        if trained.prefill:
            assert served[-1] == {"role": "assistant", "content": trained.prefill}
            served = served[:-1]
        assert [message.model_dump() for message in trained.prompt] == served
        assert trained.completion.startswith(trained.prefill)
        assert adapter.parse(signature, trained.completion[len(trained.prefill) :]) == {
            "answer": source.fields["answer"]
        }


def test_the_split_is_by_content_and_nothing_stands_on_both_sides() -> None:
    rollouts = gold_rollouts(PROGRAM, METRIC, ROWS)
    rows = distilled_rows(PROGRAM, _candidate(), rollouts, 1.0, 0.2)
    again = distilled_rows(PROGRAM, _candidate(), rollouts[::-1], 1.0, 0.2)
    assert {row.id for row in rows.val} == {row.id for row in again.val}
    assert not {row.id for row in rows.train} & {row.id for row in rows.val}
    assert len(rows.train) + len(rows.val) == 40


def test_wrong_and_unparsed_answers_are_not_taught() -> None:
    answers = ["[[ ## answer ## ]]\n7\n\n[[ ## completed ## ]]"] * 30 + ["no marker at all"] * 10
    evaluator = Evaluator(PROGRAM, _candidate(), ScriptedLM(answers), METRIC, ("document", "question"))
    rollouts = candidate_rollouts(evaluator, [*ROWS[:7], *([ROWS[7]] * 23), *ROWS[8:18]])
    assert [rollout.score for rollout in rollouts] == [0.0] * 7 + [1.0] * 23 + [0.0] * 10
    with pytest.raises(DataError, match="kept 23 of 40"):
        distilled_rows(PROGRAM, _candidate(), rollouts, 1.0, 0.2)


def test_an_example_that_is_a_demo_of_the_prompt_is_not_taught() -> None:
    demo = dict(ROWS[3].fields)
    candidate = Candidate(layout=Layout(), predictors={"self": PredictorPrompt(instructions="Answer.", demos=(demo,))})
    rows = distilled_rows(PROGRAM, candidate, gold_rollouts(PROGRAM, METRIC, ROWS), 1.0, 0.2)
    assert rows.shown == 1
    assert not any(row.id.startswith(ROWS[3].id) for row in (*rows.train, *rows.val))


class _Chain(dspy.Module):
    def __init__(self) -> None:
        self.first = dspy.Predict("document -> summary")
        self.second = dspy.Predict("summary, question -> answer")

    def forward(self, document: str, question: str) -> dspy.Prediction:
        return self.second(summary=self.first(document=document).summary, question=question)


def test_rollouts_are_kept_in_order_however_many_rows_run_at_once(tmp_path: Path) -> None:
    delays = random.Random(2)

    def echo(messages: list[dict[str, str]]) -> str:
        time.sleep(delays.random() * 0.002)
        number = re.findall(r"It is (\d+)\.", messages[-1]["content"])[-1]
        return f"[[ ## answer ## ]]\n{number}\n\n[[ ## completed ## ]]"

    def rollouts(lm: ScriptedLM, store: Path | None = None) -> list[Rollout]:
        evaluator = Evaluator(PROGRAM, _candidate(), lm, METRIC, ("document", "question"))
        return candidate_rollouts(evaluator, ROWS, store, throughput=throughput)

    throughput = Throughput()
    one = rollouts(ScriptedLM(echo))
    store = tmp_path / "teacher.jsonl"
    for rollout in one[5:9]:
        append_jsonl(store, rollout)
    lm = ScriptedLM(echo, parallel=8)
    assert rollouts(lm, store) == one
    assert len(lm.requests) == 36
    assert read_jsonl(store, Rollout) == [*one[5:9], *one[:5], *one[9:]]
    assert throughput.records == 40 + 36


def test_a_chain_is_taught_predictor_by_predictor_from_its_own_rollouts() -> None:
    def answer(messages: list[dict[str, str]]) -> str:
        field = "summary" if "`summary` (str)" in messages[0]["content"].split("output fields")[1] else "answer"
        return f"[[ ## {field} ## ]]\n5\n\n[[ ## completed ## ]]"

    chain = _Chain()
    candidate = Candidate.of_program(chain, Layout())
    evaluator = Evaluator(chain, candidate, ScriptedLM(answer), METRIC, ("document", "question"))
    five = [DataRow(id=f"{n:016x}", fields={"document": f"{n}", "question": f"{n}?", "answer": "5"}) for n in range(20)]
    rows = distilled_rows(chain, candidate, candidate_rollouts(evaluator, five), 1.0, 0.3)
    ids = [row.id for row in (*rows.train, *rows.val)]
    assert len(ids) == 40
    assert {name.split("-")[1] for name in ids} == {"0", "1"}
    with pytest.raises(ConfigError, match="teacher: candidate"):
        gold_rollouts(chain, METRIC, five)


def test_a_student_of_gold_answers_is_not_asked_to_reason() -> None:
    thinking = _candidate(reasoning=True)
    assert student_candidate(thinking, "gold").layout.reasoning is False
    assert student_candidate(thinking, "candidate") == thinking
