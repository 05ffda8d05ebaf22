"""Sums and products of metrics."""

from dataclasses import dataclass

import pytest

from promptopt import metrics
from promptopt.errors import ConfigError
from promptopt.metrics import answer_exact_match, answer_f1, json_valid, label_accuracy
from promptopt.metrics.base import Fields, Metric, Score
from promptopt.metrics.combined import Product, WeightedSum

ROW = {"answer": "a red house", "label": "x"}
HALF_RIGHT = {"answer": "red car", "label": "x"}  # token F1 0.5: the article does not count


@dataclass(frozen=True)
class Undecided(Metric):
    name: str = "undecided"

    def score(self, example: Fields, prediction: Fields) -> Score:
        return Score(None, "cannot tell", {"seen": 1.0})


def test_weighted_sum_by_operators() -> None:
    metric = 0.7 * answer_f1 + label_accuracy * 0.3
    assert metric == WeightedSum((answer_f1, label_accuracy), (0.7, 0.3))
    assert metric.name == "0.7 answer_f1 + 0.3 label_accuracy"
    score = metric.score(ROW, HALF_RIGHT)
    assert score.value == pytest.approx(0.65)
    assert score.details == {"answer_f1": 0.5, "answer_f1.exact_match": 0.0, "label_accuracy": 1.0}
    assert score.feedback == "answer_f1: expected 'a red house'; got 'red car'"
    assert metric(ROW, ROW) == 1.0


def test_product_by_operators() -> None:
    metric = answer_f1 * label_accuracy * json_valid
    assert isinstance(metric, Product)
    assert metric.name == "answer_f1 * label_accuracy * json_valid"
    assert metric(ROW, {"answer": '"a red house"', "label": "x"}) == 1.0
    assert metric(ROW, HALF_RIGHT) == 0.0
    assert metric.requires() == ("label",)
    assert metric.requires_any() == (("answers", "answer"),)


def test_sums_of_products_and_scaled_sums() -> None:
    metric = 0.5 * (answer_f1 * label_accuracy) + 0.5 * (0.5 * answer_f1 + 0.5 * answer_exact_match)
    assert isinstance(metric, WeightedSum)
    assert metric.weights == (0.5, 0.25, 0.25)
    assert metric(ROW, HALF_RIGHT) == pytest.approx(0.5 * 0.5 + 0.25 * 0.5)
    assert ((0.5 * answer_f1 + 0.5 * label_accuracy) * json_valid).name == (
        "(0.5 answer_f1 + 0.5 label_accuracy) * json_valid"
    )


def test_undecided_part_leaves_the_whole_undecided() -> None:
    score = (0.5 * answer_f1 + 0.5 * Undecided()).score(ROW, ROW)
    assert score.value is None
    assert score.details == {"answer_f1": 1.0, "answer_f1.exact_match": 1.0, "undecided.seen": 1.0}
    assert score.feedback == "undecided: cannot tell"


def test_corpus_figures_carry_the_name_of_their_part() -> None:
    gold = {"mr": "inform(name[A])", "answer": "x"}
    assert (0.5 * metrics.viggo + 0.5 * answer_f1).corpus([(gold, gold)]) == {"viggo.slot_error_rate": 0.0}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: answer_f1 + label_accuracy, "at most 1 together"),
        (lambda: 0.7 * answer_f1 + 0.4 * label_accuracy, r"\[0\.7, 0\.4\]"),
        (lambda: -0.5 * answer_f1, "above 0"),
        (lambda: float("nan") * answer_f1, "above 0"),
        (lambda: 0.5 * answer_f1 + 0.5 * answer_f1, "different names"),
        (lambda: WeightedSum((answer_f1,), (0.5, 0.5)), "1 metric"),
        (lambda: Product(()), "different names"),
    ],
)
def test_what_does_not_combine(make: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()  # type: ignore[operator]


def test_only_metrics_and_numbers_combine() -> None:
    with pytest.raises(TypeError):
        _ = answer_f1 + 1  # type: ignore[operator]
    with pytest.raises(TypeError):
        _ = answer_f1 * "x"  # type: ignore[operator]
