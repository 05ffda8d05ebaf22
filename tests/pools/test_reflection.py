"""Reflection: which failures the writer reads, what it is told of them, and what of its replies is taken."""

import re

import dspy
import pytest

from promptopt.candidate import Candidate
from promptopt.errors import ConfigError, LMError
from promptopt.evaluation.evaluate import evaluate_rows
from promptopt.layout.spec import Layout
from promptopt.lm.protocol import Messages
from promptopt.lm.scripted import ScriptedLM
from promptopt.pools.pool import Pools, PredictorPool
from promptopt.pools.reflection import failures_of, reflect_on_failures
from promptopt.records import DataRow, ExampleRecord, Outcome
from tests.pools.chain import ROWS, Chain, teach, teacher

CHAIN = Candidate.of_program(Chain(), Layout())
RECORDS = evaluate_rows(teacher(ScriptedLM(teach)), ROWS[:10])
FAILED = ["00", "01", "03", "06", "09"]


def write(messages: Messages) -> str:
    """A writer that thinks about what it sees."""
    seen = re.findall(r"code of item(\d\d)", messages[-1]["content"])
    return f"They are all about items.\n\n```\nMind the items with the numbers {', '.join(seen)}.\n```"


def reflect(lm: dspy.BaseLM, n: int = 2, seed: int = 0, **options: object) -> list[str]:
    found = reflect_on_failures(lm, Chain(), CHAIN, "reply", ROWS, RECORDS, n, seed, **options)  # type: ignore[arg-type]
    return [proposal.text for proposal in found]


def test_failures_are_what_scored_below_the_worst_first() -> None:
    assert [failure.row.id for failure in failures_of(ROWS, RECORDS)] == FAILED
    rows = [DataRow(id=key, fields={}) for key in "abc"]
    records = [
        ExampleRecord(example_id="a", outcome=Outcome.SCORED, score=0.6),
        ExampleRecord(example_id="b", outcome=Outcome.UNSCORED, score=None),
        ExampleRecord(example_id="c", outcome=Outcome.SCORED, score=0.2),
        ExampleRecord(example_id="other", outcome=Outcome.SCORED, score=0.0),
    ]
    assert [failure.row.id for failure in failures_of(rows, records)] == ["c", "a"]
    assert [failure.row.id for failure in failures_of(rows, records, below=0.5)] == ["c"]


def test_the_writer_reads_what_went_in_what_came_and_what_was_expected() -> None:
    lm = ScriptedLM(write)
    reflect(lm, n=2)
    prompts = [request.messages[0]["content"] for request in lm.requests]
    wrong = next(prompt for prompt in prompts if "item03" in prompt)
    assert "Given:\nquestion: What is the code of item03?" in wrong
    assert "The model answered:\nanswer: unknown" in wrong
    assert "Expected:\nanswer: code 03" in wrong
    assert "Score: 0 of 1. expected code 03" in wrong
    unreadable = next(prompt for prompt in prompts if "item01" in prompt)
    assert "I do not know.\n(This could not be read:" in unreadable
    assert all(CHAIN.predictors["reply"].instructions in prompt for prompt in prompts)


def test_every_failure_is_read_before_one_is_read_again() -> None:
    lm = ScriptedLM(write)
    texts = reflect(lm, n=2)
    seen = [re.findall(r"code of item(\d\d)", request.messages[0]["content"]) for request in lm.requests]
    assert [len(shown) for shown in seen] == [3, 3]
    assert {*seen[0], *seen[1]} == set(FAILED)
    for seed in range(6):
        lm = ScriptedLM(write)
        reflect(lm, n=5, seed=seed)
        read = [n for request in lm.requests for n in re.findall(r"code of item(\d\d)", request.messages[0]["content"])]
        assert {key: read.count(key) for key in FAILED} == dict.fromkeys(FAILED, 3)
        orders = [tuple(read[start : start + len(FAILED)]) for start in range(0, len(read), len(FAILED))]
        assert len(set(orders)) > 1
    assert texts == [f"Mind the items with the numbers {', '.join(shown)}." for shown in seen]


def test_reflection_is_reproducible_and_its_origin_names_the_examples() -> None:
    found = reflect_on_failures(ScriptedLM(write), Chain(), CHAIN, "reply", ROWS, RECORDS, 2, seed=0)
    assert [proposal.text for proposal in found] == reflect(ScriptedLM(write, parallel=3))
    assert reflect(ScriptedLM(write), seed=1) != reflect(ScriptedLM(write))
    ids = re.findall(r"\d\d", found[0].text)
    assert found[0].origin.startswith(f"reflected on {', '.join(ids)}, seed ")


def test_what_came_of_it_is_the_next_generation() -> None:
    own = CHAIN.predictors
    pools = Pools(
        predictors={name: PredictorPool(instructions=(own[name].instructions,), demo_sets=((),)) for name in own}
    )
    found = reflect_on_failures(ScriptedLM(write), Chain(), CHAIN, "reply", ROWS, RECORDS, 2, seed=0)
    longer = pools.extended({"reply": found})
    assert longer.generation == 1
    assert longer.continues(pools)
    assert longer.predictors["reply"].instruction_origins == ("", *(proposal.origin for proposal in found))


def test_no_failures_no_question() -> None:
    silent = ScriptedLM([])
    right = [record for record in RECORDS if record.score == 1]
    assert reflect_on_failures(silent, Chain(), CHAIN, "reply", ROWS, right, 2, seed=0) == ()
    assert silent.requests == []


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "They failed.\n\nSo it goes.",
        "```\n```",
        "```\nItem 03 has the answer which is: code 03.\n\n[[ ## x ## ]]\n```",
    ],
)
def test_a_writer_that_cannot_do_it_leaves_none_and_a_broken_one_raises(reply: str) -> None:
    assert reflect(ScriptedLM(lambda messages: reply)) == []
    with pytest.raises(LMError, match="0 completions"):
        reflect(ScriptedLM([]))


def test_known_instructions_and_expected_answers_are_refused() -> None:
    rows = [row.model_copy(update={"fields": {**row.fields, "answer": f"the secret code is {row.id}"}}) for row in ROWS]
    replies = ["Take the known one.", "Answer like this: the secret code is 03", "Say the code."]
    refused: list[str] = []
    found = reflect_on_failures(
        ScriptedLM(lambda messages: f"```\n{replies[len(refused) % 3]}\n```"), Chain(), CHAIN, "reply", rows, RECORDS,
        1, 0, known=["Take the known one."], on_refused=lambda reply, why: refused.append(why),
    )  # fmt: skip
    assert [proposal.text for proposal in found] == ["Say the code."]
    assert refused[0] == "is known already"
    assert "the secret code is 03" in refused[1]


def test_a_predictor_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigError, match="no predictor 'answer'"):
        reflect_on_failures(ScriptedLM([]), Chain(), CHAIN, "answer", ROWS, RECORDS, 1, 0)
