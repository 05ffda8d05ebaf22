"""JSON outputs: whether they are JSON, and whether they fit their JSON schema. Compares no values."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, NoReturn

from promptopt.errors import ConfigError, DataError
from promptopt.extras import require
from promptopt.metrics.base import Fields, GoldMetric, Metric, Score
from promptopt.metrics.values import first_field, text_of

_FENCE = re.compile(r"\s*```(?:json)?[ \t]*\n(.*?)\n?```\s*", re.DOTALL | re.IGNORECASE)


@dataclass(frozen=True)
class JsonText:
    """What a text is, read as JSON; `problem` is empty where it could be read."""

    value: Any = None
    problem: str = ""
    fenced: bool = False


def read_json_text(text: str) -> JsonText:
    """Return the JSON value of `text` by RFC 8259 (no NaN, no duplicate keys), with or without a Markdown fence."""
    fence = _FENCE.fullmatch(text)
    try:
        value = json.loads(
            fence[1] if fence else text, parse_constant=_refuse_constant, object_pairs_hook=_refuse_duplicates
        )
    except RecursionError:
        return JsonText(problem="too deeply nested", fenced=fence is not None)
    except ValueError as error:
        return JsonText(problem=str(error), fenced=fence is not None)
    return JsonText(value, fenced=fence is not None)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("an object has the same key twice")
    return found


@dataclass(frozen=True)
class JsonValid(Metric):
    """1 where the output is one JSON value and nothing else, else 0. Needs no gold.

    Source: RFC 8259. An output that DSPy parsed already (a list, a mapping, a number) is valid by having been parsed.

    Attributes:
        kind: "object" wants an object, "any" takes every JSON value.
        allow_fence: whether a Markdown fence around the JSON is forgiven.
    """

    name: str = "json_valid"
    prediction_field: str = "answer"
    kind: Literal["any", "object"] = "any"
    allow_fence: bool = False

    def score(self, example: Fields, prediction: Fields) -> Score:
        """Return whether the output is JSON."""
        value, problem = _output(prediction, self.prediction_field, self.allow_fence)
        if not problem and self.kind == "object" and not isinstance(value, Mapping):
            problem = f"expected an object, got {type(value).__name__}"
        return Score(float(not problem), f"not JSON: {_short(problem)}" if problem else "valid JSON")


@dataclass(frozen=True)
class JsonSchemaMatch(GoldMetric):
    """1 where the output is JSON that fits its JSON schema, else 0; `valid` (is JSON at all) among the details.

    Source: JSON Schema draft 2020-12, or the draft that `$schema` names, by the library jsonschema (extra `metrics`).
    A `$ref` may point inside the schema only; nothing is fetched.

    Attributes:
        schema: JSON text of the schema; None = the example has it.
        gold_fields: the first of these that the example has holds its schema, as a mapping or as JSON text.
    """

    name: str = "json_schema"
    prediction_field: str = "answer"
    schema: str | None = None
    gold_fields: tuple[str, ...] = ("json_schema", "schema")
    allow_fence: bool = False

    def __post_init__(self) -> None:
        if self.schema is not None and not isinstance(read_json_text(self.schema).value, dict | bool):
            raise ConfigError(f"The metric {self.name!r}: the schema is not JSON text of a schema: {self.schema!r}.")

    def score(self, example: Fields, prediction: Fields) -> Score:
        """Return whether the output fits its schema.

        Raises:
            DataError: the example has no schema, or it is not a valid one.
            MissingExtraError: jsonschema is not installed.
        """
        text = self.schema
        if text is None:
            found = example.get(first_field(example, self.gold_fields, self.name))
            text = found if isinstance(found, str) else json.dumps(found, sort_keys=True, default=str)
        validator = _validator(text, self.name)
        value, problem = _output(prediction, self.prediction_field, self.allow_fence)
        if problem:
            return Score(0.0, f"not JSON: {_short(problem)}", {"valid": 0.0})
        try:
            error = next(iter(validator.iter_errors(value)), None)
        except RecursionError:
            return Score(0.0, "the output is too deeply nested for its schema", {"valid": 1.0})
        except Exception as broken:  # an unresolvable $ref shows only while validating
            raise DataError(f"The metric {self.name!r}: the schema cannot be used: {_short(str(broken))}") from broken
        if error is None:
            return Score(1.0, "fits the schema", {"valid": 1.0})
        return Score(0.0, f"at {error.json_path}: {_short(error.message)}", {"valid": 1.0})

    def requires(self) -> tuple[str, ...]:
        """Return the field of the schema if it is not given and there is only one to look in."""
        return super().requires() if self.schema is None else ()

    def requires_any(self) -> tuple[tuple[str, ...], ...]:
        """Return the fields of the schema if it is not given and there are several to look in."""
        return super().requires_any() if self.schema is None else ()


@lru_cache(maxsize=64)
def _validator(schema: str, metric: str) -> Any:
    jsonschema, referencing = require("jsonschema"), require("referencing")
    read = read_json_text(schema)
    if read.problem or not isinstance(read.value, dict | bool):
        raise DataError(f"The metric {metric!r}: the schema of the example is not a JSON schema: {_short(schema)}")
    kind = jsonschema.validators.validator_for(read.value, default=jsonschema.Draft202012Validator)
    try:
        kind.check_schema(read.value)
    except jsonschema.exceptions.SchemaError as error:
        raise DataError(f"The metric {metric!r}: not a valid JSON schema: {_short(error.message)}") from error
    # An empty registry: by default jsonschema would fetch what a remote $ref names.
    return kind(read.value, registry=referencing.Registry())


def _output(prediction: Fields, field: str, allow_fence: bool) -> tuple[Any, str]:
    """Return the JSON value of the output and, where it has none, the problem."""
    value = prediction.get(field)
    dump = getattr(value, "model_dump", None)
    if callable(dump) and not isinstance(value, type):
        return dump(mode="json"), ""
    if value is None or value == []:
        return None, "the output is empty"
    if not isinstance(value, str):
        # By way of text, so that what JSON cannot say (a set, NaN) is a problem here too.
        try:
            value = json.dumps(value)
        except (TypeError, ValueError, RecursionError) as error:
            return None, str(error)
    read = read_json_text(value)
    if read.fenced and not allow_fence and not read.problem:
        return None, "the JSON stands in a Markdown fence"
    return read.value, read.problem


def _short(text: str, longest: int = 200) -> str:
    line = " ".join(text_of(text).split())
    return line if len(line) <= longest else line[: longest - 1] + "…"
