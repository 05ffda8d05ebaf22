"""Each rule rejects what it is for, and lets through what it should."""

import pytest
from pydantic import JsonValue

from promptopt.config.synthesis import RowChecks
from promptopt.errors import ConfigError
from promptopt.metrics.registry import get_metric
from promptopt.synthesis.checks import RejectedError, RowChecker

PASSAGE = (
    "Employees of Northwind Traders get 25 days of paid leave. Requests go to Maria Jensen at least 14 days ahead. "
    "Unused days expire on 31 March of the following year."
)
JA = "東京支社の社員には年間二十五日の有給休暇があります。申請は十四日前までに人事部へ提出します。"


def _qa(question: str, answer: str, passage: str = PASSAGE) -> dict[str, JsonValue]:
    return {"document": passage, "question": question, "answer": answer}


def _checker(**rules: object) -> RowChecker:
    return RowChecker("question_answer", RowChecks.model_validate(rules), "en")


@pytest.mark.parametrize(
    ("question", "answer", "reason"),
    [
        ("", "25 days", "empty"),
        ("How many days are there?", "  ", "empty"),
        ("What is the weather like?", "The passage does not say.", "declined"),
        ("Do employees get 25 days of leave?", "25 days", "answer_in_question"),
        ("What do employees get?", "a bicycle, lunch and free parking", "not_answerable"),
        ("How many days of leave do employees get?", "28 days of paid leave", "not_grounded"),
        ("How much leave does Contoso give to employees?", "25 days", "not_grounded"),
    ],
)
def test_a_bad_question_or_answer_is_rejected(question: str, answer: str, reason: str) -> None:
    with pytest.raises(RejectedError) as caught:
        _checker().check(_qa(question, answer), "r0")
    assert caught.value.reason == reason


def test_a_good_row_passes_with_its_measures() -> None:
    measured = _checker().check(_qa("How many days of paid leave are there?", "25 days"), "r0")
    assert measured == {"span": 1.0, "overlap": 1.0, "groundedness": 1.0}
    reworded = _checker().check(_qa("Who takes requests?", "Maria Jensen, 14 days before"), "r0")
    assert (reworded["span"], reworded["overlap"]) == (0.0, 0.8)


def test_japanese_is_checked_by_characters() -> None:
    checker = RowChecker("question_answer", RowChecks(), "ja")
    assert checker.check(_qa("有給休暇は年に何日ですか？", "二十五日", JA), "r0")["span"] == 1.0
    for question, answer, reason in (
        ("有給休暇は二十五日ですか？", "二十五日", "answer_in_question"),
        ("どこに提出しますか？", "大阪本社経理課", "not_answerable"),
    ):
        with pytest.raises(RejectedError) as caught:
            checker.check(_qa(question, answer, JA), question)
        assert caught.value.reason == reason


def test_a_rejected_question_is_no_duplicate_and_an_accepted_one_is() -> None:
    checker = _checker()
    with pytest.raises(RejectedError, match="not_answerable"):
        checker.check(_qa("How many days of paid leave do employees get every year?", "lots of them indeed"), "r0")
    checker.check(_qa("How many days of paid leave do employees get every year?", "25 days"), "r1")
    with pytest.raises(RejectedError, match="duplicate: of r1"):
        checker.check(_qa("how many days of paid  leave do employees get every year?", "25 days"), "r2")
    with pytest.raises(RejectedError, match=r"near_duplicate: of r1 \(0.90\)"):
        checker.check(_qa("So how many days of paid leave do employees get every year?", "25 days"), "r3")


def test_a_named_metric_decides_last_and_one_that_cannot_is_an_error() -> None:
    row = _qa("How many days of paid leave are there?", "25 days")
    strict = RowChecker("question_answer", RowChecks(metric="json_valid"), "en", get_metric("json_valid"))
    with pytest.raises(RejectedError, match="metric: json_valid"):
        strict.check(row, "r0")
    passes = RowChecker("question_answer", RowChecks(metric="answer_f1"), "en", get_metric("answer_f1"))
    assert passes.check(row, "r0")["answer_f1"] == 1.0
    wrong = RowChecker("question_answer", RowChecks(metric="sql_execution"), "en", get_metric("sql_execution"))
    with pytest.raises(ConfigError, match=r"checks.metric 'sql_execution' needs"):
        wrong.check(row, "r0")


@pytest.mark.parametrize(
    ("keywords", "text", "reason"),
    [
        (["oak table", "delivery"], "A solid oak table for every home, made to last for years.", "keyword_missing"),
        (["oak table"], "An oak table.", "length"),
        ([], "A solid oak table for every home, made to last for years.", "empty"),
        (["oak table"], "Our oak table costs 499 euros and comes home to you with care.", "not_grounded"),
        (["Oak Table", "delivery"], "An oak table with free delivery: solid wood for a home that lasts.", None),
    ],
)
def test_texts_for_keywords(keywords: list[JsonValue], text: str, reason: str | None) -> None:
    checker = RowChecker("keywords_text", RowChecks(), "en")
    row: dict[str, JsonValue] = {"keywords": keywords, "text": text}
    if reason is None:
        assert checker.check(row, "r0") == {"coverage": 1.0, "groundedness": 1.0}
        return
    with pytest.raises(RejectedError) as caught:
        checker.check(row, "r0")
    assert caught.value.reason == reason


def test_keywords_taken_from_a_passage_stand_in_it() -> None:
    checker = RowChecker("keywords_text", RowChecks(), "en")
    row: dict[str, JsonValue] = {
        "document": PASSAGE,
        "keywords": ["paid leave", "holiday pay"],
        "text": "All about paid leave and holiday pay for people who work with us.",
    }
    with pytest.raises(RejectedError, match="keyword_not_in_passage"):
        checker.check(row, "r0")
