"""JSON schemas: what their grammars generate is valid, keyword by keyword and for drawn schemas."""

import json
import re
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from promptopt.errors import ConfigError
from promptopt.layout.gbnf.json_schema import SchemaRules
from promptopt.layout.gbnf.json_strings import FORMATS, JsonStrings
from promptopt.layout.gbnf.json_text import ONE_LINE, RELAXED, JsonText
from promptopt.layout.gbnf.rules import Rules
from tests.layout.gbnf_sampler import Gbnf, samples


def grammar(schema: Any, *, lenient: bool = False, spacing: Any = ONE_LINE) -> str:
    rules = Rules()
    text = JsonText(rules, spacing, JsonStrings(rules))
    return rules.text(SchemaRules(text, schema, lenient=lenient).expression(schema, "schema"))


TREE = {
    "$defs": {
        "string": {  # A name that the grammar uses itself.
            "type": "object",
            "properties": {"kids": {"type": "array", "items": {"$ref": "#/$defs/string"}}, "v": {"$ref": "#/$defs/v"}},
            "required": ["v"],
            "additionalProperties": False,
        },
        "v": {"type": "integer", "minimum": 3},
    },
    "$ref": "#/$defs/string",
}
SCHEMAS: dict[str, Any] = {
    "anything": {},
    "any object": {"type": "object"},
    "tree": TREE,
    "reference with siblings": {**TREE, "required": ["kids"]},
    "objects": {
        "type": "object",
        "properties": {"a b": {"type": "string"}, 'q"': {"type": "null"}, "c": True},
        "required": ["c"],
        "additionalProperties": False,
    },
    "nothing required": {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "boolean"}}},
    "required without properties": {"required": ["x"], "additionalProperties": {"type": "integer"}},
    "maps": {"type": "object", "additionalProperties": {"type": "number"}, "minProperties": 1, "maxProperties": 2},
    "no members": {"type": "object", "additionalProperties": False},
    "names": {"type": "object", "propertyNames": {"enum": ["a", "b"]}, "additionalProperties": {"type": "null"}},
    "name patterns": {"patternProperties": {"^x[0-9]+$": {"type": "boolean"}}, "additionalProperties": False},
    "lists": {"type": "array", "items": {"type": "array", "items": {"type": "integer"}, "maxItems": 2}, "minItems": 2},
    "empty list": {"type": "array", "maxItems": 0},
    "tuples": {"prefixItems": [{"type": "integer"}, {"const": "x"}], "minItems": 2, "maxItems": 2},
    "longer tuples": {"prefixItems": [{"type": "integer"}], "items": {"type": "null"}, "minItems": 3},
    "enum": {"enum": ["a", 'quo"te', "back\\slash", "日本\n", 1, 1.5, None, True, [1, {"k": []}]]},
    "enum of a type": {"type": "integer", "enum": [1, "a", True, 2]},
    "const": {"const": {"a": "</x>"}},
    "union": {"anyOf": [{"type": "integer"}, {"type": "array", "items": {"type": "boolean"}}, {"type": "null"}]},
    "union beside a type": {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
        "anyOf": [{"required": ["a"]}, {"required": ["b"]}],
    },
    "types": {"type": ["string", "null", "integer"], "minLength": 2, "minimum": 5},
    "all of": {"allOf": [{"type": "number", "minimum": 1}, {"type": "integer", "maximum": 12, "minimum": 0}]},
    "lengths": {"type": "string", "minLength": 2, "maxLength": 4},
    "least length": {"type": "string", "minLength": 3},
    "pattern": {"type": "string", "pattern": r"^(ab|[^\"\\x-z]\d{2,3})+\.\w*$"},
    "pattern anywhere": {"type": "string", "pattern": r"q|<\s"},
    "pattern ends": {"type": "string", "pattern": "^a$|^b.c$"},
    "share": {"type": "number", "minimum": 0, "maximum": 1},
    "above": {"type": "number", "exclusiveMinimum": 0},
    "below": {"type": "integer", "exclusiveMinimum": -2.5, "exclusiveMaximum": 4},
    "silent": {"title": "T", "description": "d", "default": 3, "examples": [1], "x-order": 1, "type": "integer"},
    "unknown format": {"type": "string", "format": "email"},
}


@pytest.mark.parametrize("spacing", [ONE_LINE, RELAXED])
@pytest.mark.parametrize("name", SCHEMAS)
def test_what_is_generated_is_valid(name: str, spacing: Any) -> None:
    validator = jsonschema.Draft202012Validator(SCHEMAS[name])
    for text in samples(grammar(SCHEMAS[name], spacing=spacing), 80):
        validator.validate(json.loads(text))
        assert text == text.strip()
        if spacing is ONE_LINE:
            assert "\n" not in text


scalars = st.sampled_from(
    [
        *({"type": kind} for kind in ("string", "integer", "number", "boolean", "null")),
        {"type": "string", "maxLength": 3},
        {"type": "string", "pattern": "^[a-c]+$"},
        {"type": "string", "format": "date"},
        {"type": "integer", "minimum": -3, "exclusiveMaximum": 40},
        {"type": "number", "maximum": 0.25},
        {"enum": ["x", 2, None]},
        {"const": "<"},
        {},
    ]
)


def _larger(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    names = st.sampled_from(["a", "b", "name", "string", "value", "日"])
    return st.one_of(
        st.builds(lambda item, least: {"type": "array", "items": item, "minItems": least}, inner, st.integers(0, 2)),
        st.builds(lambda options: {"anyOf": options}, st.lists(inner, min_size=1, max_size=3)),
        st.builds(lambda value: {"type": "object", "additionalProperties": value}, inner),
        st.builds(
            lambda items: {"type": "array", "prefixItems": items, "minItems": len(items)}, st.lists(inner, max_size=3)
        ),
        st.builds(
            lambda members, some, closed: {
                "type": "object",
                "properties": members,
                "required": [name for name, keep in zip(members, some, strict=False) if keep],
                **({"additionalProperties": False} if closed else {}),
            },
            st.dictionaries(names, inner, max_size=4),
            st.lists(st.booleans(), min_size=4, max_size=4),
            st.booleans(),
        ),
    )


@settings(max_examples=120, suppress_health_check=[HealthCheck.too_slow])
@given(st.recursive(scalars, _larger, max_leaves=6))
def test_drawn_schemas(schema: dict[str, Any]) -> None:
    validator = jsonschema.Draft202012Validator(schema)
    for text in samples(grammar(schema), 8):
        validator.validate(json.loads(text))


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        (SCHEMAS["objects"], {"a b": 'x\n"\\\t\u0001/é', "c": [1, {"k": None}]}),
        (SCHEMAS["tree"], {"kids": [{"v": 4}, {"kids": [], "v": 30}], "v": 3}),
        (SCHEMAS["pattern"], "ab*123ab.x_1"),
        (SCHEMAS["share"], 0.25),
        (SCHEMAS["names"], {"b": None, "a": None}),
        ({"type": "string", "minLength": 2, "maxLength": 2}, 'é"'),
        ({}, [{"a": [1.5e-7, -2, True, None, {}]}, []]),
    ],
)
def test_what_json_writes_fits(schema: Any, value: Any) -> None:
    jsonschema.validate(value, schema)
    assert Gbnf(grammar(schema)).accepts(json.dumps(value, ensure_ascii=False))
    assert Gbnf(grammar(schema, spacing=RELAXED)).accepts(json.dumps(value, ensure_ascii=False, indent=2))


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"not": {"type": "string"}}, "holds not"),
        ({"type": "array", "items": {"if": {}}}, "holds if"),
        ({"type": "integer", "multipleOf": 3}, "holds multipleOf"),
        ({"type": "array", "uniqueItems": True}, "holds uniqueItems"),
        ({"type": "string", "maxLength": 5000}, "above 1000"),
        ({"type": "string", "pattern": "^a", "minLength": 3}, "beside pattern"),
        ({"type": "string", "pattern": "(?=x)x"}, "holds assert"),
        ({"type": "string", "pattern": "(?i)x"}, "holds a flag"),
        ({"type": "string", "pattern": "a("}, "is no regular expression"),
        ({"type": "string", "pattern": r"\bx"}, "holds at"),
        ({"type": "string", "pattern": r"[^\x00-\U0010ffff]"}, "holds none"),
        ({"type": "object", "properties": {"a": {}}, "minProperties": 1}, "minProperties beside properties"),
        ({"type": "object", "minProperties": 2}, "minProperties above 1"),
        ({"type": "strnig"}, "has the type 'strnig'; allowed are string"),
        ({"$ref": "#/$defs/none"}, "points to nothing"),
        ({"$ref": "https://example.org/x"}, "points to nothing"),
        ({"$defs": {"a": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}, "leads to itself"),
        ({"$defs": {"a": {"anyOf": [{"$ref": "#/$defs/a"}, {}]}}, "$ref": "#/$defs/a"}, "leads to itself"),
        ({"$defs": {"a": {"allOf": [{"$ref": "#/$defs/a"}]}}, "$ref": "#/$defs/a"}, "leads to itself"),
        ({"type": "integer", "minimum": 3, "maximum": 2}, "No number lies between"),
        ({"type": "integer", "minimum": "3"}, "bounds a number by '3'"),
        ({"type": "array", "minItems": 3, "maxItems": 2}, "nothing fits"),
        ({"type": "array", "prefixItems": [{}], "items": False, "minItems": 2}, "allows 1 items"),
        ({"required": ["a"], "additionalProperties": False}, "forbids additional"),
        ({"additionalProperties": False, "minProperties": 1}, "allows none"),
        ({"type": "string", "enum": [1]}, "which is nothing"),
        ({"enum": [1], "minimum": 0}, "minimum beside enum"),
        ({"allOf": [{"pattern": "a"}, {"pattern": "b"}]}, "differ in pattern"),
        ({"items": 3}, "holds 3 at"),
        (False, "holds False"),
    ],
)
def test_what_cannot_be_expressed_is_refused(schema: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        grammar(schema)


def test_what_readers_do_not_insist_on_is_left_out_on_request() -> None:
    for schema in (
        {"type": "array", "uniqueItems": True, "items": {"const": 1}},
        {"type": "string", "maxLength": 5000},
    ):
        json.loads(next(samples(grammar(schema, lenient=True), 1)))


@pytest.mark.parametrize("name", FORMATS)
def test_formats(name: str) -> None:
    import datetime
    import ipaddress
    import uuid

    from pydantic import TypeAdapter

    types = {
        "date": datetime.date,
        "time": datetime.time,
        "date-time": datetime.datetime,
        "duration": datetime.timedelta,
        "uuid": uuid.UUID,
        "ipv4": ipaddress.IPv4Address,
    }
    reader: TypeAdapter[Any] = TypeAdapter(types[name])
    for text in samples(f"root ::= {FORMATS[name]}\n", 400):
        reader.validate_python(text)


def test_dates_are_exactly_the_calendar() -> None:
    import datetime

    parsed = Gbnf(f"root ::= {FORMATS['date']}\n")
    for year in (1, 4, 100, 400, 1900, 2000, 2023, 2024, 9999):
        for month in range(14):
            for day in (0, 1, 28, 29, 30, 31, 32):
                text = f"{year:04d}-{month:02d}-{day:02d}"
                try:
                    datetime.date.fromisoformat(text)
                except ValueError:
                    assert not parsed.accepts(text), text
                else:
                    assert parsed.accepts(text), text
    assert not parsed.accepts("0000-01-01")
    assert not parsed.accepts("0000-02-29")
