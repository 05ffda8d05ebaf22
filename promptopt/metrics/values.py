"""Reads gold values and predicted text out of examples and predictions. Knows no scoring rule."""

import json
import math
from collections.abc import Iterable

from promptopt.errors import DataError
from promptopt.metrics.base import Fields

_MISSING = object()


def has_field(fields: Fields, name: str) -> bool:
    """Return whether `fields` has a field `name`, be its value None or not."""
    return fields.get(name, _MISSING) is not _MISSING


def field_names(fields: Fields) -> tuple[str, ...]:
    """Return the names of all fields; () where the object does not list them."""
    keys = getattr(fields, "keys", None)
    return tuple(str(key) for key in keys()) if callable(keys) else ()


def first_field(example: Fields, names: tuple[str, ...], metric: str) -> str:
    """Return the first of `names` that `example` has with a value.

    Raises:
        DataError: it has none of them.
    """
    for name in names:
        if example.get(name) is not None:
            return name
    wanted = " or ".join(repr(name) for name in names)
    raise DataError(
        f"The metric {metric!r} needs field {wanted} of an example; this one has {sorted(field_names(example))}. "
        "Map it under `data.fields`."
    )


def gold_texts(example: Fields, names: tuple[str, ...], metric: str) -> tuple[str, ...]:
    """Return the gold answers in the first of `names` that holds any, as text.

    A list gives one gold per item. Where all that is there is an empty list, the question has no answer, and the only
    right prediction is an empty one (SQuAD 2.0).

    Raises:
        DataError: the example has none of the fields.
    """
    first = first_field(example, names, metric)
    for name in names[names.index(first) :]:
        value = example.get(name)
        if isinstance(value, list | tuple) and value:
            return tuple(text_of(item) for item in value)
        if value is not None and not isinstance(value, list | tuple):
            return (text_of(value),)
    return ("",)


def text_of(value: object) -> str:
    """Return `value` as a person would write it: None is empty, 18.0 is "18", True is "true", a list is joined."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return str(int(value)) if math.isfinite(value) and value.is_integer() else str(value)
    if isinstance(value, list | tuple):
        return ", ".join(text_of(item) for item in value)
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)
    return str(value)


def feedback(expected: Iterable[str], got: str) -> str:
    """Return the one feedback line: what was expected, what came."""
    wanted = " or ".join(dict.fromkeys(_quote(text) for text in expected))
    return f"expected {wanted}; got {_quote(got)}"


def _quote(text: str, longest: int = 160) -> str:
    line = " ".join(text.split())
    return repr(line if len(line) <= longest else line[: longest - 1] + "…")
