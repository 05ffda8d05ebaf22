"""The Metric contract, for every metric that promptopt carries."""

import atexit
import shutil
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

import dspy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptopt.errors import DataError
from promptopt.lm.scripted import ScriptedLM
from promptopt.metrics import METRICS, Metric, answer_f1, label_accuracy, numeric_answer
from promptopt.metrics.combined import Product, WeightedSum
from promptopt.metrics.judges.jury import Jury
from promptopt.metrics.judges.rag import RagJudge
from promptopt.metrics.judges.rating import CriteriaJudge, ReferenceJudge


def database_with(script: str) -> str:
    path = Path(tempfile.mkdtemp(prefix="promptopt-tests-")) / "a database.sqlite"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executescript(script)
    atexit.register(shutil.rmtree, path.parent, ignore_errors=True)
    return str(path)


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
    "viggo_strict": ({"mr": "inform(name[A])"}, {"mr": " inform(name[A])\n"}),
    "viggo_slots": ({"mr": "inform(name[A])"}, {"mr": "confirm(name[A])"}),
    "choice_letter": ({"output": "c"}, {"answer": "答えはcです。"}),
    "field_f1": ({"people": 9, "time": "7 PM", "date": ""}, {"people": "9", "time": "7 pm", "date": None}),
    "json_valid": ({}, {"answer": '{"a": [1]}'}),
    "json_schema": ({"schema": {"type": "array", "minItems": 1}}, {"answer": "[1]"}),
    "sql_execution": (
        {"query": ["SELECT 'a' AS x", "SELECT 1"], "database": database_with("CREATE TABLE t (x)")},
        {"query": "```sql\nSELECT count(*) + 1 FROM t;\n```"},
    ),
    "sql_logical_form": (
        {"query": "SELECT a FROM t WHERE b = '5' AND a > 1", "schema": "CREATE TABLE t (a INTEGER, b VARCHAR)"},
        {"query": "select t.a from t where 1 < a and b = 5;"},
    ),
    "bleu": ({"answer": "The cat sat on the mat."}, {"answer": "The cat sat on the mat."}),
    "bleu_ja": ({"answer": "猫が畳の上で寝ている。"}, {"answer": "猫が畳の上で寝ている。"}),
    "chrf": ({"references": ["x", "The cat sat."]}, {"answer": "The cat sat."}),
    "rouge_1": ({"answer": "sat the cat"}, {"answer": "The cat sat"}),
    "rouge_2": ({"answer": "the cat sat"}, {"answer": "The cat sat."}),
    "rouge_l": ({"answers": ["no", "the cat sat"]}, {"answer": "The cat sat."}),
    "rouge_1_ja": ({"answer": "猫が寝る"}, {"answer": "寝る猫が"}),
    "rouge_2_ja": ({"answer": "猫が寝ている"}, {"answer": "猫が寝ている。"}),
    "rouge_l_ja": ({"answer": "猫が寝ている"}, {"answer": "猫が寝ている。"}),
    "ngram_similarity": ({"answer": "the cat sat"}, {"answer": "The cat sat."}),
    "ngram_similarity_ja": ({"answer": "猫が寝ている"}, {"answer": "猫が寝ている。"}),
    "groundedness": (
        {"context": "On 3 May 2021 Ada Lovelace paid twelve pounds."},
        {"answer": "Lovelace paid 12 pounds in May 2021."},
    ),
    "groundedness_ja": ({"context": "令和3年5月、十二人が東京に集まった。"}, {"answer": "2021年5月に12人です。"}),
    "sum": ({"answer": "9", "label": "x"}, {"answer": "9", "label": "X"}),
    "product": ({"answer": "9", "label": "x"}, {"answer": "9", "label": "X"}),
}

ALWAYS_10 = ScriptedLM(lambda messages: "[[10]]")
JUDGES: tuple[Metric, ...] = (
    ReferenceJudge(ALWAYS_10),
    CriteriaJudge(ALWAYS_10, prediction_field="answer"),
    RagJudge(ALWAYS_10),
    Jury([ReferenceJudge(ALWAYS_10, name="jury")] * 2, name="jury"),
)
SAMPLES |= {
    "reference_judge": ({"query": "q", "reference_answer": "r"}, {"answer": "a"}),
    "criteria_judge": ({"query": "q", "extras": {"criteria": "polite"}}, {"answer": "a"}),
    "rag_judge": ({"question": "q", "answers": ["r"], "context": "c"}, {"answer": "a"}),
    "jury": ({"question": "q", "reference": "r"}, {"answer": "a"}),
}

COMBINED = (
    WeightedSum((answer_f1, label_accuracy), (0.7, 0.3), name="sum"),
    Product((numeric_answer, label_accuracy), name="product"),
)
EVERY = {**METRICS, **{metric.name: metric for metric in (*COMBINED, *JUDGES)}}
NEEDS_NO_EXAMPLE = {"json_valid"}

VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.lists(st.text()),
    st.dictionaries(st.text(), st.text()),
)

each_metric = pytest.mark.parametrize("metric", EVERY.values(), ids=list(EVERY))


def test_every_metric_has_a_sample() -> None:
    assert SAMPLES.keys() == EVERY.keys()
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
    if metric.name in NEEDS_NO_EXAMPLE:
        assert metric.score({"unrelated": 1}, prediction).value == 1.0
        return
    names = "|".join(part.name for part in getattr(metric, "parts", [metric]))
    with pytest.raises(DataError, match=names):
        metric.score({"unrelated": 1}, prediction)


@each_metric
def test_required_fields_are_required(metric: Metric) -> None:
    example, prediction = SAMPLES[metric.name]
    for name in metric.requires():
        assert name in example
        with pytest.raises(DataError):
            metric.score({key: value for key, value in example.items() if key != name}, prediction)


@each_metric
def test_what_an_example_lacks_is_known_without_scoring(metric: Metric) -> None:
    example, prediction = SAMPLES[metric.name]
    assert metric.lacking(example) == []
    for group in metric.requires_any():
        rest = {key: value for key, value in example.items() if key not in group}
        assert len(rest) < len(example)
        assert " or ".join(group) in metric.lacking(rest)
        with pytest.raises(DataError):
            metric.score(rest, prediction)


@each_metric
def test_corpus_figures_of_perfect_predictions(metric: Metric) -> None:
    figures = metric.corpus([SAMPLES[metric.name]] * 2)
    perfect = {name: 0.0 if name.endswith("slot_error_rate") else 1.0 for name in figures}
    assert figures == pytest.approx(perfect)
    assert metric.corpus([]) == {}
