"""Scoring rules, case by case."""

import sys

import pytest

from promptopt import metrics
from promptopt.errors import ConfigError, DataError
from promptopt.metrics.answers import TokenF1, normalise_answer
from promptopt.metrics.labels import FieldMatch, LabelAccuracy
from promptopt.metrics.meaning import parse_meaning
from promptopt.metrics.numeric import final_number
from promptopt.metrics.registry import METRICS, get_metric


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("16-3", "3"),
        ("it is -5", "-5"),
        ("$-5", "-5"),
        ("-$5", "-5"),
        ("−7", "-7"),
        ("1,000,000.", "1000000"),
        ("1,2,3", "3"),
        ("12,34", "34"),
        ("x is 3.5.", "3.5"),
        (".5", ".5"),
        ("1/2", "2"),
        ("３０円", "30"),
        ("20%", "20"),
        ("#### 1,234 and 5", "1234"),
        ("#### 3\n#### 7.", "7"),
        ("#### none, but 4", "4"),
        ("none", None),
        ("", None),
    ],
)
def test_final_number(text: str, number: str | None) -> None:
    assert final_number(text) == number


def test_numbers_are_compared_as_strings() -> None:
    assert metrics.numeric_answer({"answer": "18"}, {"answer": "18.0"}) == 0.0
    assert metrics.numeric_answer({"answer": "18"}, {"answer": 18.0}) == 1.0
    with pytest.raises(DataError, match="holds no number"):
        metrics.numeric_answer({"answer": "many"}, {"answer": "18"})


def test_english_normalisation() -> None:
    assert normalise_answer("The  U.S. — a Land,\tan idea") == "us — land idea"


def test_japanese_normalisation_keeps_punctuation() -> None:
    assert normalise_answer("「A」、 B。", "ja") == "「a」、 b"


def test_best_gold_counts_and_lists_come_first() -> None:
    assert metrics.answer_f1({"answers": ["x", "b c d"], "answer": "z"}, {"answer": "b c"}) == pytest.approx(0.8)
    assert metrics.answer_f1({"answers": [], "answer": "z"}, {"answer": "z"}) == 1.0


def test_unanswerable_question_wants_an_empty_answer() -> None:
    assert metrics.answer_f1({"answers": []}, {"answer": ""}) == 1.0
    assert metrics.answer_f1({"answers": []}, {"answer": "something"}) == 0.0


def test_answer_fields_are_configurable() -> None:
    metric = TokenF1(prediction_field="reply", gold_fields=("gold",))
    assert metric.requires() == ("gold",)
    assert metric({"gold": 5}, {"reply": "5"}) == 1.0


def test_feedback_says_expected_and_got() -> None:
    assert metrics.answer_f1.score({"answer": "a\nb"}, {"answer": "c"}).feedback == "expected 'a b'; got 'c'"


def test_labels() -> None:
    assert metrics.label_accuracy({"label": 3}, {"label": "3"}) == 1.0
    assert metrics.label_accuracy({"label": "Ｂ"}, {"label": "b."}) == 1.0
    assert metrics.label_accuracy({"label": "lost card"}, {"label": "lost cards"}) == 0.0
    assert LabelAccuracy(prediction_field="p", gold_field="g")({"g": "x"}, {"p": "x"}) == 1.0


def test_field_match() -> None:
    example = {"name": "Café", "people": 9, "tags": ["b", "a"], "note": None}
    score = metrics.field_match.score(
        example, {"name": "Cafe\u0301", "people": "9", "tags": ["A", "b"], "note": "x", "reasoning": "because"}
    )
    assert score.value == 0.75
    assert score.details == {"name": 1.0, "people": 1.0, "tags": 1.0, "note": 0.0}
    assert score.feedback == "note: expected ''; got 'x'"
    assert FieldMatch(fields=("name", "people"))(example, {"name": "café"}) == 0.5


def test_viggo_parts() -> None:
    gold = {"mr": "inform(name[A B], genres[x, y], rating[])"}
    score = metrics.viggo.score(gold, {"mr": "confirm(name[A B],genres[y,x], rating[good])"})
    assert score.value == 0.0
    assert score.details == {
        "function": 0.0,
        "attributes": 1.0,
        "values": 0.0,
        "strict": 0.0,
        "slot_error_rate": pytest.approx(1 / 3),
    }
    score = metrics.viggo.score(gold, {"mr": "inform(rating[], name[A  B], genres[y, x])"})
    assert score.value == 1.0
    assert score.details["strict"] == 0.0
    assert metrics.viggo.score(gold, {"mr": "inform(name[A B], name[A B], genres[x, y], rating[])"}).value == 0.0


def test_viggo_slot_error_rate() -> None:
    gold = {"mr": "inform(name[A], genres[x, y], rating[good])"}
    wrong_missing_added = {"mr": "inform(name[B], genres[y, x], developer[C], developer[D])"}
    assert metrics.viggo_slots(gold, wrong_missing_added) == pytest.approx(0.0)  # 1 + 1 + 2 of 3, cut off
    assert metrics.viggo_slots(gold, {"mr": "confirm(name[B], genres[y, x], rating[good])"}) == pytest.approx(2 / 3)
    assert metrics.viggo_slots(gold, {"mr": "no representation"}) == 0.0
    pairs = [(gold, gold), (gold, wrong_missing_added), (gold, {})]
    assert metrics.viggo.corpus(pairs) == {"slot_error_rate": pytest.approx((0 + 4 + 3) / 9)}
    assert metrics.viggo_strict(gold, {"mr": "inform(genres[x, y], name[A], rating[good])"}) == 0.0


@pytest.mark.parametrize(
    "text", ["", "inform", "inform(", "inform(name[a)", "inform(name[a] b[c])", "inform(x)", "f(a[[b]])"]
)
def test_no_meaning_representation(text: str) -> None:
    assert parse_meaning(text) is None


def test_a_broken_gold_is_a_data_error() -> None:
    with pytest.raises(DataError, match="is not `function"):
        metrics.viggo({"mr": "inform(name"}, {"mr": "inform(name[a])"})


def test_get_metric_by_name_and_path() -> None:
    assert all(get_metric(name) is metric for name, metric in METRICS.items())
    assert get_metric("promptopt.metrics.registry:viggo") is metrics.viggo


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("answer_fi", "Did you mean 'answer_f1'.*label_accuracy"),
        ("promptopt.metrics.answers:TokenF1", "is a class"),
        ("promptopt.metrics.registry:METRICS", "must be an instance"),
        ("promptopt.metrics.registry:nothing", "has no 'nothing'"),
        ("no_such_module:x", "cannot be imported"),
    ],
)
def test_unknown_metric(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        get_metric(name)


def test_names_of_the_package_are_the_registry() -> None:
    assert set(METRICS) | {"METRICS", "Metric", "Score", "get_metric"} == set(metrics.__all__)
    assert all(getattr(metrics, name) is metric for name, metric in METRICS.items())
    assert "promptopt.metrics.viggo" not in sys.modules  # a module of that name would hide the metric
