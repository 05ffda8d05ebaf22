"""Judges that rate: what they ask, how a verdict is read, and that no failure becomes a number."""

from collections.abc import Sequence
from typing import Any

import pytest

from promptopt.errors import ConfigError, DataError, LMError, ParseError
from promptopt.lm.scripted import ScriptedLM
from promptopt.metrics.judges.asking import JudgeLM
from promptopt.metrics.judges.jury import Jury, jury_rating
from promptopt.metrics.judges.rag import RagJudge
from promptopt.metrics.judges.rating import CriteriaJudge, ReferenceJudge
from promptopt.metrics.judges.verdict import RATINGS, read_verdict
from promptopt.study.task import metric_identity

EXAMPLE = {"query": "Who wrote it?", "reference_answer": "Ada Lovelace"}


def judge(*replies: str | Exception, **settings: Any) -> ReferenceJudge:
    return ReferenceJudge(ScriptedLM(list(replies)), **settings)


@pytest.mark.parametrize(("reply", "value"), [("[[1]]", 0.0), ("[[10]]", 1.0), ("It is right. [[ 4 ]]", 3 / 9)])
def test_a_rating_is_mapped_to_the_unit_interval(reply: str, value: float) -> None:
    score = judge(reply).score(EXAMPLE, {"answer": "Lovelace"})
    assert score.value == pytest.approx(value)
    assert score.details == {"rating_of_10": pytest.approx((value * 9 + 1) / 10)}


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("", "the reply is empty"),
        ("7", "holds no verdict"),
        ("[7]", "holds no verdict"),
        ("[[0]]", "not one of the allowed"),
        ("[[11]]", "not one of the allowed"),
        ("[[7/10]]", "not one of the allowed"),
        ("[[7.5]]", "not one of the allowed"),
        ("[[-3]]", "not one of the allowed"),
        ("[[n]]", "not one of the allowed"),
        ("It says [[10]], but I say [[2]]", "several verdicts"),
    ],
)
def test_a_reply_without_one_verdict_is_unscored_and_never_0(reply: str, reason: str) -> None:
    with pytest.raises(ParseError, match=reason):
        read_verdict(reply, RATINGS)
    score = judge(reply).score(EXAMPLE, {"answer": "Lovelace"})
    assert score.value is None
    assert reason in score.feedback
    assert score.details == {}


def test_the_same_verdict_twice_is_one() -> None:
    assert read_verdict("[[8]] I repeat: [[8]]", RATINGS) == "8"


def test_a_broken_lm_raises_and_is_never_a_score() -> None:
    with pytest.raises(LMError, match="Scripted failure"):
        judge(RuntimeError("dead")).score(EXAMPLE, {"answer": "Lovelace"})


def test_a_question_that_does_not_fit_is_unscored() -> None:
    small = ReferenceJudge(ScriptedLM(["[[5]]"], n_ctx=20))
    score = small.score(EXAMPLE, {"answer": "Lovelace"})
    assert score.value is None
    assert "does not fit" in score.feedback


@pytest.mark.parametrize("answer", [None, "", " \n"])
def test_an_empty_answer_is_rated_1_without_a_call(answer: object) -> None:
    lm = ScriptedLM([])
    assert ReferenceJudge(lm).score(EXAMPLE, {"answer": answer}).value == 0.0
    assert lm.requests == []


def test_an_empty_answer_to_an_unanswerable_question_is_perfect() -> None:
    assert judge().score({"question": "q", "answers": []}, {"answer": ""}).value == 1.0


def test_the_question_holds_every_part_and_the_rules() -> None:
    lm = ScriptedLM(["[[9]]"])
    ReferenceJudge(lm).score(EXAMPLE, {"answer": "It was Lovelace."})
    text = lm.requests[0].messages[0]["content"]
    for part in ("Who wrote it?", "Ada Lovelace", "It was Lovelace.", "another language", "Length, format", "[[n]]"):
        assert part in text
    assert lm.requests[0].temperature == 0.0


def test_several_references_are_shown_as_alternatives() -> None:
    lm = ScriptedLM(["[[9]]"])
    ReferenceJudge(lm).score({"question": "q", "answers": ["one", "two", "one"]}, {"answer": "a"})
    assert "Any of these is right:\n- one\n- two\n</reference>" in lm.requests[0].messages[0]["content"]


def test_the_criteria_judge_rates_the_query_by_the_extras_at_temperature_half() -> None:
    lm = ScriptedLM(["[[3]]"])
    score = CriteriaJudge(lm).score({"query": "Dear sir", "extras": {"criteria": "polite"}}, {"answer": "unused"})
    text = lm.requests[0].messages[0]["content"]
    assert score.value == pytest.approx(2 / 9)
    assert "<criteria>\npolite" in text
    assert "<text>\nDear sir" in text
    assert "unused" not in text
    assert lm.requests[0].temperature == 0.5


@pytest.mark.parametrize("example", [{"query": "q", "extras": {}}, {"query": "q", "extras": None}, {"query": "q"}])
def test_criteria_that_are_missing_are_a_data_error(example: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"extras\.criteria"):
        CriteriaJudge(ScriptedLM([])).score(example, {})


# Half to even: 6.5 -> 6, 7.5 -> 8.
@pytest.mark.parametrize(
    ("ratings", "verdict"),
    [([6, 7], 6), ([7, 8], 8), ([0, 9], 9), ([None, 9, 4, 5], 6), ([0, None], None), ([2, 2, 3], 2)],
)
def test_a_jury_rounds_half_to_even_and_drops_what_is_missing(ratings: Sequence[int | None], verdict: int) -> None:
    assert jury_rating(ratings) == verdict


def test_a_jury_says_what_each_judge_said() -> None:
    score = Jury([judge("[[7]]"), judge("no idea"), judge("[[8]]")]).score(EXAMPLE, {"answer": "a"})
    assert score.value == pytest.approx(7 / 9)
    assert score.details == pytest.approx({"rating_of_10": 0.8, "decided": 2 / 3, "judge_1": 0.7, "judge_3": 0.8})


def test_a_jury_without_a_verdict_is_unscored() -> None:
    score = Jury([judge("?"), judge("!")]).score(EXAMPLE, {"answer": "a"})
    assert score.value is None
    assert "no verdict" in score.feedback


def test_a_jury_needs_two() -> None:
    with pytest.raises(ConfigError, match="at least two"):
        Jury([judge()])


RAG = {"question": "q?", "answers": ["gold"], "context": "the passage"}


def test_the_rag_judge_asks_for_three_aspects_with_what_each_needs() -> None:
    lm = ScriptedLM(["[[10]]", "[[1]]", "[[4]]"])
    score = RagJudge(lm).score(RAG, {"answer": "said"})
    assert score.details == pytest.approx({"accuracy": 1.0, "relevance": 0.0, "faithfulness": 1 / 3})
    assert score.value == pytest.approx(4 / 9)
    accuracy, relevance, faithfulness = (request.messages[0]["content"] for request in lm.requests)
    assert "gold" in accuracy and "the passage" not in accuracy
    assert "gold" not in relevance and "the passage" not in relevance
    assert "the passage" in faithfulness and "gold" not in faithfulness


def test_one_undecided_aspect_leaves_the_whole_undecided_and_the_others_in_the_details() -> None:
    score = RagJudge(ScriptedLM(["[[10]]", "hm", "[[4]]"])).score(RAG, {"answer": "said"})
    assert score.value is None
    assert score.details == pytest.approx({"accuracy": 1.0, "faithfulness": 1 / 3})
    assert "relevance: the reply holds no verdict" in score.feedback


def test_the_rag_judge_needs_only_the_fields_of_its_aspects() -> None:
    faithful = RagJudge(ScriptedLM(["[[10]]"]), aspects=("faithfulness",))
    assert faithful.score({"knowledge": "k"}, {"answer": "a"}).value == 1.0
    with pytest.raises(ConfigError, match="aspects"):
        RagJudge(ScriptedLM([]), aspects=())


def test_another_lm_temperature_or_wording_is_another_metric() -> None:
    def lm(name: str) -> JudgeLM:
        return JudgeLM(lambda: ScriptedLM([]), name=name, identity=name)

    judges = (
        ReferenceJudge(lm("a")),
        ReferenceJudge(lm("b")),
        ReferenceJudge(lm("a"), temperature=0.5),
        ReferenceJudge(lm("a"), explain=True),
        ReferenceJudge(lm("a"), prediction_field="text"),
        CriteriaJudge(lm("a"), temperature=0.0, name="reference_judge"),
        Jury([ReferenceJudge(lm("a")), ReferenceJudge(lm("b"))]),
        0.5 * ReferenceJudge(lm("a")),
        0.5 * ReferenceJudge(lm("b")),
    )
    assert len({metric_identity(one) for one in judges}) == len(judges)
    assert metric_identity(ReferenceJudge(lm("a"))) == metric_identity(ReferenceJudge(lm("a")))


def test_the_lm_is_opened_at_the_first_question() -> None:
    opened: list[int] = []

    def open_lm() -> ScriptedLM:
        opened.append(1)
        return ScriptedLM(["[[5]]", "[[6]]"])

    late = ReferenceJudge(JudgeLM(open_lm, name="late", identity="late"))
    assert late.score(EXAMPLE, {"answer": ""}).value == 0.0
    assert opened == []
    late.score(EXAMPLE, {"answer": "a"})
    late.score(EXAMPLE, {"answer": "b"})
    assert opened == [1]
