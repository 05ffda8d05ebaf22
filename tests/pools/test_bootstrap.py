"""Bootstrapped demos: only good answers, for every predictor, the same however many rows run, and no row too many."""

import dspy
import pytest

from promptopt.candidate import Candidate
from promptopt.errors import LMError
from promptopt.evaluation.evaluate import Evaluator
from promptopt.layout.spec import Layout
from promptopt.lm.protocol import Messages
from promptopt.lm.scripted import ScriptedLM
from promptopt.pools.bootstrap import bootstrap_order, bootstrapped_demos, demo_sets_of, demos_wanted
from promptopt.pools.pool import Demo
from promptopt.records import DataRow, ExampleRecord
from tests.pools.chain import ROWS, Chain, Exact, teach, teacher


def test_good_runs_become_demos_of_both_predictors() -> None:
    demos = bootstrapped_demos(teacher(ScriptedLM(teach)), Chain(), ROWS, wanted=3)
    # Items 0 and 3 are answered wrongly, 1 unreadably.
    assert demos["find.predict"] == [
        {"question": f"What is the code of item{n}?", "reasoning": f"it says {n}", "item": f"item{n}"}
        for n in ("02", "04", "05")
    ]
    assert demos["reply"] == [
        {"item": f"item{n}", "question": f"What is the code of item{n}?", "answer": f"code {n}"}
        for n in ("02", "04", "05")
    ]


def test_nothing_depends_on_how_many_rows_run_at_once_and_few_are_asked_in_vain() -> None:
    alone, together = ScriptedLM(teach), ScriptedLM(teach, parallel=5)
    seen: list[ExampleRecord] = []
    one = bootstrapped_demos(teacher(alone), Chain(), ROWS, 4, on_record=seen.append)
    assert one == bootstrapped_demos(teacher(together), Chain(), ROWS, 4)
    assert one == bootstrapped_demos(teacher(alone), Chain(), ROWS, 4, parallel=3)
    assert [record.example_id for record in seen] == ["00", "01", "02", "03", "04", "05", "06", "07"]
    # Two calls a row, and one where the first did not parse; rows that ran ahead are at most five.
    assert len(together.requests) <= 15 + 2 * 5


def test_a_lower_threshold_takes_worse_answers_but_never_unreadable_ones() -> None:
    demos = bootstrapped_demos(teacher(ScriptedLM(teach)), Chain(), ROWS[:4], wanted=9, min_score=0.0)
    assert [demo["answer"] for demo in demos["reply"]] == ["unknown", "code 02", "unknown"]


def test_nothing_is_asked_where_nothing_is_wanted_and_a_broken_teacher_raises() -> None:
    silent = ScriptedLM([])
    assert bootstrapped_demos(teacher(silent), Chain(), ROWS, wanted=0) == {"find.predict": [], "reply": []}
    assert silent.requests == []
    with pytest.raises(LMError, match="0 completions"):
        bootstrapped_demos(teacher(silent), Chain(), ROWS, wanted=1)


class Summaries(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        self.shorten = dspy.Predict("page -> summary")
        self.reply = dspy.Predict("summary, question -> answer")

    def forward(self, page: str, question: str) -> dspy.Prediction:
        return self.reply(summary=self.shorten(page=page).summary, question=question)


def test_what_two_runs_have_in_common_is_one_demo() -> None:
    def reply(messages: Messages) -> str:
        text = messages[-1]["content"]
        field, said = ("answer", f"code {text.split('item')[1][:2]}") if "item" in text else ("summary", "short")
        return f"[[ ## {field} ## ]]\n{said}\n\n[[ ## completed ## ]]"

    program = Summaries()
    rows = [row.model_copy(update={"fields": {**row.fields, "page": "One page."}}) for row in ROWS[:3]]
    candidate = Candidate.of_program(program, Layout())
    asked = Evaluator(program, candidate, ScriptedLM(reply), Exact(), ["page", "question"])
    demos = bootstrapped_demos(asked, program, rows, wanted=3)
    assert demos["shorten"] == [{"page": "One page.", "summary": "short"}]
    assert len(demos["reply"]) == 3


class Loop(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        self.step = dspy.Predict("question, so_far -> answer")

    def forward(self, question: str) -> dspy.Prediction:
        first = self.step(question=question, so_far="nothing")
        return self.step(question=question, so_far=first.answer)


def test_a_predictor_called_twice_gives_one_demo_per_run_not_always_the_last() -> None:
    def reply(messages: Messages) -> str:
        number = messages[-1]["content"].split("item")[1][:2]
        return f"[[ ## answer ## ]]\ncode {number}\n\n[[ ## completed ## ]]"

    demos = bootstrapped_demos(teacher(ScriptedLM(reply), Loop()), Loop(), ROWS[:12], wanted=12)["step"]
    assert [demo["question"] for demo in demos] == [row.fields["question"] for row in ROWS[:12]]
    assert {demo["so_far"] == "nothing" for demo in demos} == {True, False}


def test_reasoning_that_only_the_layout_asks_for_is_kept_where_it_came() -> None:
    def reply(messages: Messages) -> str:
        number = messages[-1]["content"].split("item")[1][:2]
        thought = "[[ ## reasoning ## ]]\nI looked.\n\n" if number == "00" else ""
        return f"{thought}[[ ## answer ## ]]\ncode {number}\n\n[[ ## completed ## ]]"

    program = dspy.Predict("question -> answer")
    demos = bootstrapped_demos(
        teacher(ScriptedLM(reply), program, Layout(reasoning=True)), program, ROWS[:2], wanted=2
    )["self"]
    assert [demo.get("reasoning") for demo in demos] == ["I looked.", None]
    assert all(list(demo)[-1] == "answer" for demo in demos)
    assert "reasoning" not in demos[1]


def test_sets_share_no_demo_while_there_are_enough_and_are_drawn_when_there_are_not() -> None:
    demos: dict[str, list[Demo]] = {"many": [{"n": n} for n in range(7)], "few": [{"n": 0}, {"n": 1}], "none": []}
    sets = demo_sets_of(demos, n_sets=4, largest=3, seed=0)
    assert demos_wanted(4, 3) == 7
    assert [[demo["n"] for demo in chosen] for chosen in sets["many"]] == [[0], [1, 2], [3, 4, 5], [6]]
    assert sets["none"] == []
    assert sets["few"][0] == ({"n": 0},)
    assert all(1 <= len(chosen) <= 2 for chosen in sets["few"])
    assert len(sets["few"]) == len({str(chosen) for chosen in sets["few"]}) > 1
    assert sets == demo_sets_of(demos, n_sets=4, largest=3, seed=0)


def test_rows_are_asked_in_seeded_order_without_the_long_ones() -> None:
    rows = [*ROWS, DataRow(id="long", fields={"question": "long " * 99}), DataRow(id="open", fields={"answer": "x"})]
    asked = bootstrap_order(rows, ["question"], 20, seed=1)
    assert asked == bootstrap_order(rows[::-1], ["question"], 20, seed=1)
    assert asked != bootstrap_order(rows, ["question"], 20, seed=2)
    assert len({row.id for row in asked} - {"long", "open"}) == 20
