"""Structured outputs: F1 of fields, JSON and JSON schemas."""

from typing import Any

import pytest
from pydantic import BaseModel

from promptopt import metrics
from promptopt.errors import ConfigError, DataError
from promptopt.metrics.json_text import JsonSchemaMatch, JsonValid, read_json_text
from promptopt.metrics.structured import FieldF1


class Booking(BaseModel):
    people: int
    time: str = ""


def test_empty_fields_are_no_pairs() -> None:
    gold = {"people": "9", "time": "", "date": "May 3"}
    score = metrics.field_f1.score(gold, {"people": "9", "time": "7 pm", "date": ""})
    assert score.value == 0.5
    assert score.details == {"precision": 0.5, "recall": 0.5, "exact": 0.0}
    assert score.feedback == "missing or other: date='may 3'; not expected: time='7 pm'"
    assert metrics.field_f1({"people": "", "time": None}, {"people": "", "time": ""}) == 1.0
    assert metrics.field_f1({"people": "", "time": ""}, {"people": "9", "time": ""}) == 0.0


def test_fields_that_the_prediction_left_out_cost_recall() -> None:
    metric = FieldF1(fields=("people", "time"))
    assert metric.requires() == ("people", "time")
    assert metric({"people": 9, "time": "7"}, {"people": 9}) == pytest.approx(2 / 3)
    with pytest.raises(DataError, match="time"):
        metric({"people": 9}, {"people": 9, "time": ""})


@pytest.mark.parametrize("text", [{"people": 9, "time": "7 PM"}, '```json\n{"people": "9", "time": "7 pm"}\n```'])
def test_object_in_one_field(text: object) -> None:
    metric = FieldF1(within="booking")
    assert metric({"booking": '{"people": 9, "time": "7 pm"}'}, {"booking": text}) == 1.0
    assert metric({"booking": {"people": 9, "time": "7 pm"}}, {"booking": Booking(people=9, time="7 pm")}) == 1.0
    assert metric({"booking": {"people": 9}}, {"booking": text}) == pytest.approx(2 / 3)
    assert metric({"booking": {"people": 9}}, {"booking": "nine"}) == 0.0
    with pytest.raises(DataError, match="is not an object"):
        metric({"booking": "nine"}, {"booking": text})


def test_nested_objects_and_lists_count_by_their_leaves() -> None:
    gold = {"order": {"items": [{"name": "A", "n": 1}, {"name": "B", "n": 2}], "to": {"city": "X"}}}
    found = {"order": {"items": [{"name": "b", "n": 2}, {"name": "A", "n": 3}], "to": {"city": "X"}}}
    assert metrics.field_f1(gold, found) == pytest.approx(0.8)


def test_corpus_f1_is_over_all_pairs() -> None:
    gold = {"a": "1", "b": "2"}
    pairs = [(gold, gold), (gold, {"a": "1", "b": "3"}), (gold, {})]
    assert metrics.field_f1.corpus(pairs) == {"precision": 3 / 4, "recall": 3 / 4, "f1": 3 / 4}
    named = FieldF1(fields=("a", "b")).corpus(pairs)
    assert named == {"precision": 3 / 4, "recall": 1 / 2, "f1": pytest.approx(0.6)}


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        ("{}", True),
        (' [1, "ä"]\n', True),
        ("null", True),
        ("{'a': 1}", False),
        ('{"a": NaN}', False),
        ('{"a": 1, "a": 2}', False),
        ('{"a": 1} trailing', False),
        ("[" * 100_000, False),
        ("```json\n{}\n```", False),
        ({"a": 1}, True),
        ([float("nan")], False),
        ({"a": {1, 2}}, False),
        (Booking(people=1), True),
    ],
)
def test_json_valid(text: Any, valid: bool) -> None:
    assert metrics.json_valid({}, {"answer": text}) == float(valid), text


def test_json_valid_by_kind_and_fence() -> None:
    assert JsonValid(kind="object")({}, {"answer": "[1]"}) == 0.0
    assert JsonValid(kind="object")({}, {"answer": '{"a": 1}'}) == 1.0
    assert JsonValid(allow_fence=True)({}, {"answer": "```\n[1]\n```"}) == 1.0
    assert read_json_text("```json\n[1]\n```").value == [1]


SCHEMA = '{"type": "object", "properties": {"people": {"type": "integer", "minimum": 1}}, "required": ["people"]}'


def test_json_schema() -> None:
    metric = JsonSchemaMatch(schema=SCHEMA)
    assert metric.requires() == metric.requires_any() == ()
    assert metric({}, {"answer": '{"people": 2}'}) == 1.0
    assert metric({}, {"answer": {"people": 2}}) == 1.0
    score = metric.score({}, {"answer": '{"people": 0}'})
    assert (score.value, score.details) == (0.0, {"valid": 1.0})
    assert score.feedback == "at $.people: 0 is less than the minimum of 1"
    assert metric.score({}, {"answer": "people: 2"}).details == {"valid": 0.0}


def test_schema_of_the_example() -> None:
    assert metrics.json_schema({"json_schema": SCHEMA}, {"answer": '{"people": 2}'}) == 1.0
    assert metrics.json_schema({"schema": {"type": "string"}}, {"answer": '{"people": 2}'}) == 0.0


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"type": "objekt"}, "not a valid JSON schema"),
        ("type: object", "not a JSON schema"),
        ({"$ref": "https://example.com/schema.json"}, "cannot be used"),
        ({"$ref": "#/nowhere"}, "cannot be used"),
    ],
)
def test_broken_schemas(schema: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        metrics.json_schema({"schema": schema}, {"answer": "{}"})


def test_schema_given_must_be_one() -> None:
    with pytest.raises(ConfigError, match="not JSON text of a schema"):
        JsonSchemaMatch(schema="people")
