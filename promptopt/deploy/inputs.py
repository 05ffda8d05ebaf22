"""Inputs given as texts, as on a command line, as the values a signature takes."""

from collections.abc import Mapping
from typing import Any

import dspy
from dspy.adapters.utils import annotation_allows_none, get_annotation_name
from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from promptopt.errors import ConfigError


def typed_inputs(signature: type[dspy.Signature], texts: Mapping[str, str]) -> dict[str, Any]:
    """Return input name -> value: a text as it is where the field is one, else what it says as JSON or bare.

    Raises:
        ConfigError: an unknown input, a missing one, or a text that is no value of its input.
    """
    fields = signature.input_fields
    unknown = [name for name in texts if name not in fields]
    missing = [
        name
        for name, info in fields.items()
        if name not in texts and info.is_required() and not annotation_allows_none(info.annotation)
    ]
    if unknown or missing:
        parts = [f"unknown: {', '.join(unknown)}"] if unknown else []
        parts += [f"missing: {', '.join(missing)}"] if missing else []
        raise ConfigError(f"The fields do not fit ({'; '.join(parts)}). The program takes {', '.join(fields)}.")
    return {name: _value(name, fields[name], text) for name, text in texts.items()}


def _value(name: str, info: FieldInfo, text: str) -> Any:
    if info.annotation is str:
        return text
    annotation: Any = info.annotation
    adapter: TypeAdapter[Any] = TypeAdapter(annotation)
    try:
        return adapter.validate_json(text)
    except ValidationError:
        pass
    try:
        # A choice or a date is given without the quotes of JSON.
        return adapter.validate_python(text)
    except ValidationError as error:
        raise ConfigError(
            f"The input {name!r} is {text[:80]!r}, which is no {get_annotation_name(info.annotation)}: "
            f"{error.errors()[0]['msg']}. Write it as JSON."
        ) from error
