"""Proposals: what the writer is told, what of its replies is taken, and that a poor writer is no error."""

from dataclasses import replace

import dspy
import pytest
from dspy.lm15 import Request, Response

from promptopt.errors import LMError
from promptopt.lm.lm15_bridge import SUPPORTED_PARAMS, as_lm15_errors, messages_of, response_of
from promptopt.lm.protocol import FinishReason, Messages
from promptopt.lm.scripted import ScriptedLM
from promptopt.pools.instructions import ATTEMPTS
from promptopt.pools.proposals import TIPS, propose_instructions
from promptopt.records import DataRow
from tests.pools.chain import Chain


class AnswerFromPage(dspy.Signature):
    """Answer from the page."""

    page: str = dspy.InputField(desc="text that holds the answer")
    question: str = dspy.InputField()
    answer: str = dspy.OutputField(desc="a few words")


PROGRAM = dspy.Predict(AnswerFromPage)
OWN = "Answer from the page."
ROWS = [
    DataRow(
        id=f"{n:02}",
        fields={"page": f"Page {n} says much. " * 9, "question": f"q{n}?", "answer": f"the {n}. word of the page"},
    )
    for n in range(12)
]


def numbered(messages: Messages) -> str:
    """A writer that makes one proposal of each prompt."""
    tip = next(name for name, told in TIPS.items() if told in messages[-1]["content"])
    return f'Instruction: "Answer in the way that is called {tip}."'


def test_each_proposal_follows_another_tip_and_says_where_it_comes_from() -> None:
    lm = ScriptedLM(numbered)
    proposals = propose_instructions(lm, PROGRAM, "self", ROWS, 4, seed=0)
    assert [proposal.text for proposal in proposals] == [
        f"Answer in the way that is called {tip}." for tip in list(TIPS)[:4]
    ]
    seeds = [request.seed for request in lm.requests]
    assert len(set(seeds)) == 4
    assert [proposal.origin for proposal in proposals] == [
        f"proposed with tip {tip!r}, seed {seed}, by scripted" for tip, seed in zip(TIPS, seeds, strict=False)
    ]
    assert all(request.max_tokens == 512 and request.temperature == 1.0 for request in lm.requests)


def test_the_writer_sees_the_task_its_instructions_and_other_examples_each_time() -> None:
    lm = ScriptedLM(numbered)
    propose_instructions(lm, PROGRAM, "self", ROWS, 2, seed=0, max_tokens=99)
    first, second = (request.messages[0]["content"] for request in lm.requests)
    for told in (OWN, "- page: text that holds the answer", "- answer: a few words", "word of the page", "24 at most"):
        assert told in first + second
    assert first.split("# Examples")[1] != second.split("# Examples")[1]
    assert first.count("## Example") == 4
    assert {request.max_tokens for request in lm.requests} == {99}


def test_a_closed_set_of_answers_is_told() -> None:
    rows = [row.model_copy(update={"fields": {**row.fields, "answer": "no" if n % 2 else "yes"}})
            for n, row in enumerate(ROWS)]  # fmt: skip
    lm = ScriptedLM(numbered)
    propose_instructions(lm, PROGRAM, "self", rows, 1, seed=0)
    assert "answer is always one of: no, yes" in lm.requests[0].messages[0]["content"]


def test_the_same_proposals_come_however_many_requests_run_at_once() -> None:
    alone = propose_instructions(ScriptedLM(numbered), PROGRAM, "self", ROWS, 5, seed=3)
    assert alone == propose_instructions(ScriptedLM(numbered, parallel=4), PROGRAM, "self", ROWS, 5, seed=3)
    assert alone != propose_instructions(ScriptedLM(numbered), PROGRAM, "self", ROWS, 5, seed=4)


def test_replies_that_are_no_new_instruction_cost_an_attempt_each() -> None:
    replies = [
        "", OWN, "Say it short.", "say it SHORT", "Answer the 3. word of the page to everything.", "Say it at length.",
        "Known variant.",
    ]  # fmt: skip
    refused: list[tuple[str, str]] = []
    lm = ScriptedLM([*replies, "Say it in verse."])
    proposals = propose_instructions(
        lm, PROGRAM, "self", ROWS, 3, 0, known=["Known variant."], on_refused=lambda *what: refused.append(what)
    )
    assert [proposal.text for proposal in proposals] == ["Say it short.", "Say it at length.", "Say it in verse."]
    assert [reply for reply, _ in refused] == ["", OWN, "say it SHORT", replies[4], "Known variant."]
    assert "gives away" in refused[3][1]


@pytest.mark.parametrize("reply", ["", "...", "I cannot do that.", "la la la la " * 30, OWN])
def test_a_writer_that_cannot_do_it_leaves_none_and_raises_nothing(reply: str) -> None:
    lm = ScriptedLM(lambda messages: reply)
    assert propose_instructions(lm, PROGRAM, "self", ROWS, 2, seed=0) == ()
    assert len(lm.requests) == 2 * ATTEMPTS


def test_a_reply_that_was_cut_off_is_no_instruction() -> None:
    server = Server(n_ctx=2000, finish_reason="length")
    lm = dspy.LM("plain/model", engine=server, cache=False)
    refused: list[str] = []
    found = propose_instructions(lm, PROGRAM, "self", ROWS, 1, 0, on_refused=lambda reply, why: refused.append(why))
    assert found == ()
    assert refused == ["no whole reply fits the model's context or the limit of its answer"] * ATTEMPTS


def test_no_more_replies_are_begun_than_may_be_needed() -> None:
    lm = ScriptedLM(numbered, parallel=64)
    propose_instructions(lm, PROGRAM, "self", ROWS, 2, seed=0)
    assert len(lm.requests) <= 2 + 2


def test_a_broken_writer_raises() -> None:
    with pytest.raises(LMError, match="0 completions"):
        propose_instructions(ScriptedLM([]), PROGRAM, "self", ROWS, 2, seed=0)
    silent = ScriptedLM([])
    assert propose_instructions(silent, PROGRAM, "self", ROWS, 0, seed=0) == ()
    assert silent.requests == []


def test_in_a_small_context_fewer_examples_are_shown_and_at_last_nothing_is_asked() -> None:
    shown = []
    for n_ctx in (2000, 420, 300, 100):
        lm = ScriptedLM(numbered, n_ctx=n_ctx)
        propose_instructions(lm, PROGRAM, "self", ROWS, 1, seed=0, max_tokens=100)
        shown.append([request.messages[0]["content"].count("## Example") for request in lm.requests])
    assert shown[0] == [4]
    assert shown[1][0] in (1, 2, 3)
    assert shown[2] == [0]
    assert shown[3] == []


class Server:
    """The engine of some other LM of DSPy: nobody knows its context until a prompt is too long."""

    supported_params = SUPPORTED_PARAMS

    def __init__(self, n_ctx: int, finish_reason: FinishReason = "stop") -> None:
        self.scripted = ScriptedLM(numbered, n_ctx=n_ctx)
        self.finish_reason = finish_reason

    def complete(self, request: Request) -> Response:
        with as_lm15_errors():
            completion = self.scripted.complete_messages(messages_of(request))
        return response_of(request, replace(completion, finish_reason=self.finish_reason))


def test_any_dspy_lm_is_asked_again_with_less_when_the_prompt_was_too_long() -> None:
    server = Server(n_ctx=300)
    lm = dspy.LM("plain/model", engine=server, cache=False)
    (proposal,) = propose_instructions(lm, PROGRAM, "self", ROWS, 1, seed=0)
    assert proposal.origin.endswith("by plain/model")
    (request,) = server.scripted.requests
    assert 0 < request.messages[0]["content"].count("## Example") < 4
    assert (
        propose_instructions(dspy.LM("plain/model", engine=Server(50), cache=False), PROGRAM, "self", ROWS, 1, 0) == ()
    )


def test_an_inner_predictor_is_described_with_its_step_and_its_own_demos() -> None:
    rows = [DataRow(id=f"{n}", fields={"question": f"item{n}?", "answer": f"code {n}"}) for n in range(3)]
    lm = ScriptedLM(numbered)
    propose_instructions(lm, Chain(), "find.predict", rows, 1, 0, demos=[{"question": "item7?", "item": "a seventh"}])
    prompt = lm.requests[0].messages[0]["content"]
    assert "the step `find.predict`" in prompt
    assert "- reply: item, question -> answer" in prompt
    assert "item: a seventh" in prompt
    # Without demos the whole program's examples must do.
    propose_instructions(lm, Chain(), "find.predict", rows, 1, 0)
    assert "answer: code 1" in lm.requests[1].messages[0]["content"]


def test_a_demo_repeats_its_row_and_does_not_make_the_answer_common() -> None:
    shown = ROWS[3].fields
    lm = ScriptedLM(lambda messages: f"Always answer: {shown['answer']}.")
    assert propose_instructions(lm, PROGRAM, "self", ROWS, 1, 0, demos=[shown]) == ()
    # A label of many rows is no secret, although only one demo shows it.
    rows = [row.model_copy(update={"fields": {**row.fields, "answer": "card payment charged"}}) for row in ROWS]
    lm = ScriptedLM(lambda messages: "Say card payment charged, or another label.")
    assert propose_instructions(lm, PROGRAM, "self", rows, 1, 0, demos=[rows[3].fields])


def test_rows_of_one_group_share_their_answer_in_secret() -> None:
    rows = [row.model_copy(update={"group": "one", "fields": {**row.fields, "answer": "a secret of the page"}})
            for row in ROWS]  # fmt: skip
    lm = ScriptedLM(lambda messages: "The answer is a secret of the page.")
    assert propose_instructions(lm, PROGRAM, "self", rows, 1, 0) == ()


def test_what_a_demo_of_an_inner_predictor_says_is_not_given_away_either() -> None:
    demo = {"question": "item7?", "item": "the seventh item of the second list"}
    lm = ScriptedLM(lambda messages: "Say the seventh item of the second list.")
    assert propose_instructions(lm, Chain(), "find.predict", [], 1, 0, demos=[demo]) == ()
