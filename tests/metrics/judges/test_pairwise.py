"""The pairwise judge and the win rate: both orders, ties, and what is undecided."""

import pytest

from promptopt.errors import DataError
from promptopt.evaluation.win_rate import win_rate
from promptopt.lm.protocol import Messages
from promptopt.lm.scripted import ScriptedLM
from promptopt.metrics.judges.pairwise import PairwiseJudge, Preference
from promptopt.records import DataRow, ExampleRecord, Outcome

EXAMPLE = {"question": "q", "answer": "gold"}
FIRST, SECOND = {"answer": "one"}, {"answer": "two"}


def prefer(*replies: str) -> Preference:
    return PairwiseJudge(ScriptedLM(list(replies))).compare(EXAMPLE, FIRST, SECOND)


@pytest.mark.parametrize(
    ("forwards", "backwards", "side", "swayed"),
    [
        ("A", "B", "first", False),
        ("B", "A", "second", False),
        ("C", "C", "tie", False),
        ("A", "A", "tie", True),
        ("B", "B", "tie", True),
        ("A", "C", "tie", True),
        ("C", "A", "tie", True),
    ],
)
def test_an_answer_is_better_only_where_both_orders_say_so(
    forwards: str, backwards: str, side: str, swayed: bool
) -> None:
    assert prefer(f"[[{forwards}]]", f"[[{backwards}]]") == Preference(side, swayed=swayed)  # type: ignore[arg-type]


def test_one_order_without_a_verdict_is_undecided() -> None:
    assert prefer("[[A]]", "A").side is None
    assert prefer("[[D]]").side is None


def test_equal_and_empty_answers_need_no_question() -> None:
    silent = PairwiseJudge(ScriptedLM([]))
    assert silent.compare(EXAMPLE, {"answer": "x "}, {"answer": "x"}) == Preference("tie")
    assert silent.compare(EXAMPLE, {}, SECOND) == Preference("second")
    assert silent.compare(EXAMPLE, FIRST, {"answer": " "}) == Preference("first")


def test_both_orders_are_asked_with_the_reference() -> None:
    lm = ScriptedLM(["[[A]]", "[[B]]"])
    PairwiseJudge(lm).compare(EXAMPLE, FIRST, SECOND)
    forwards, backwards = (request.messages[0]["content"] for request in lm.requests)
    assert "<answer_a>\none\n</answer_a>" in forwards
    assert "<answer_a>\ntwo\n</answer_a>" in backwards
    assert "<reference>\ngold" in forwards


def record(number: int, answer: str) -> ExampleRecord:
    parsed = {"answer": answer} if answer else {}
    outcome = Outcome.SCORED if answer else Outcome.PARSE_FAILED
    return ExampleRecord(example_id=str(number), outcome=outcome, score=0.0, prediction=dict(parsed))


def test_win_rate_of_six_rows_counted_by_hand() -> None:
    def say(messages: Messages) -> str:
        text = messages[0]["content"]
        if "lost" in text:
            return "who knows"
        if "biased" in text:
            return "[[A]]"
        return "[[A]]" if text.index("good") < text.index("bad") else "[[B]]"

    rows = [DataRow(id=str(n), fields={"question": "q"}) for n in range(7)]
    first = ["bad", "good", "bad", "biased", "lost", ""]
    second = ["good", "bad", "good 2", "other", "found", "any"]
    found = win_rate(
        PairwiseJudge(ScriptedLM(say)),
        rows,
        [record(n, answer) for n, answer in enumerate(first)],
        [record(n, answer) for n, answer in enumerate(second)],
        seed=0,
    )
    # Wins on rows 0, 2 and 5, a loss on 1, a tie by the order on 3; row 4 is undecided, row 6 has no records.
    assert (found.wins, found.ties, found.losses, found.swayed) == (3, 1, 1, 1)
    assert found.undecided == {"the reply holds no verdict in [[ ]]": 1}
    assert found.rate == pytest.approx(3.5 / 5)
    assert found.interval is not None
    assert 0.0 <= found.interval.low < 0.7 < found.interval.high <= 1.0


def test_evaluations_of_other_rows_cannot_be_compared() -> None:
    with pytest.raises(DataError, match="share no row"):
        win_rate(PairwiseJudge(ScriptedLM([])), [], [record(1, "a")], [record(1, "b")], seed=0)
