"""The Metric contract, for every metric that promptopt carries."""

from typing import Any

import dspy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptopt.errors import DataError
from promptopt.metrics import METRICS, Metric

# metric -> an example, and the prediction that is perfect for it
SAMPLES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "answer_f1": ({"answers": ["the 308 points", "308"]}, {"answer": "308"}),
    "answer_exact_match": ({"answer": "Lady Gaga"}, {"answer": "lady gaga."}),
    "answer_f1_ja": ({"answers": ["対称テンソル"]}, {"answer": "対称テンソル。"}),
    "answer_exact_match_ja": ({"answers": ["約1万6500m2"]}, {"answer": "約1万6500M2"}),
    "numeric_answer": ({"answer": "48/2 = 24\n#### 1,072"}, {"answer": "So she has $1,072."}),
    "label_accuracy": ({"label": "card_arrival"}, {"label": '"card_arrival".'}),
    "field_match": ({"people": 9, "time": "7 PM", "text": "…"}, {"people": "9", "time": " 7 pm", "reasoning": "…"}),
    "viggo": ({"meaning": "inform(name[A], genres[x, y])"}, {"meaning": "inform(genres[y, x], name[A])"}),
}

VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.lists(st.text()),
    st.dictionaries(st.text(), st.text()),
)

each_metric = pytest.mark.parametrize("metric", METRICS.values(), ids=list(METRICS))


def test_every_metric_has_a_sample() -> None:
    assert SAMPLES.keys() == METRICS.keys()
    assert all(metric.name == name for name, metric in METRICS.items())


@each_metric
def test_perfect_prediction_scores_one(metric: Metric) -> None:
    example, prediction = SAMPLES[metric.name]
    score = metric.score(example, prediction)
    assert score.value == 1.0
    assert score == metric.score(example, prediction)


@each_metric
def test_works_with_dspy_objects(metric: Metric) -> None:
    example, prediction = SAMPLES[metric.name]
    value = metric(dspy.Example(**example).with_inputs(), dspy.Prediction(**prediction))
    assert type(value) is float
    assert value == 1.0


@each_metric
@pytest.mark.parametrize("nothing", [None, "", [], "   \n"])
def test_empty_prediction_is_a_low_score(metric: Metric, nothing: object) -> None:
    example, perfect = SAMPLES[metric.name]
    for prediction in ({}, dict.fromkeys(perfect, nothing), dspy.Prediction()):
        score = metric.score(example, prediction)
        assert score.value == 0.0
        assert "\n" not in score.feedback


@each_metric
@given(value=VALUES)
@settings(max_examples=50, deadline=None)
def test_any_prediction_scores_in_range(metric: Metric, value: object) -> None:
    example, perfect = SAMPLES[metric.name]
    score = metric.score(example, dict.fromkeys(perfect, value))
    assert score.value is not None
    assert 0.0 <= score.value <= 1.0
    assert all(0.0 <= part <= 1.0 for part in score.details.values())
    assert len(score.feedback.splitlines()) <= 1


@each_metric
def test_missing_gold_is_a_data_error(metric: Metric) -> None:
    _, prediction = SAMPLES[metric.name]
    with pytest.raises(DataError, match=metric.name):
        metric.score({"unrelated": 1}, prediction)


@each_metric
def test_required_fields_are_required(metric: Metric) -> None:
    example, prediction = SAMPLES[metric.name]
    for name in metric.requires():
        assert name in example
        with pytest.raises(DataError):
            metric.score({key: value for key, value in example.items() if key != name}, prediction)
