"""Answer shapes: what DSPy's output annotations allow, in the terms of `grammar`.

What lives here: the one place that knows how `dspy.adapters.utils.parse_value` reads each type, seen from the writer's
side. It writes no grammar. A text that only some readings of it would accept is not offered: DSPy reads every text that
is not typed `str` as JSON first, so a str beside other types cannot be written safely.
"""

import enum
import json
import types
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import dspy
from dspy.adapters.utils import get_annotation_name, parse_value, serialize_for_json
from pydantic import JsonValue, TypeAdapter
from pydantic.errors import PydanticUserError
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue

from promptopt.errors import ConfigError
from promptopt.layout.fields import json_text, value_text
from promptopt.layout.gbnf.json_strings import FORMATS
from promptopt.layout.gbnf.schema_parts import resolved
from promptopt.layout.grammar import ANY_TEXT, AnswerShape
from promptopt.layout.signature import FieldSpec
from promptopt.layout.spec import OutputStyle

_TEXT_TYPES = (str, dspy.Reasoning, dspy.Code)
_WHOLE_NUMBER = "^(0|-?[1-9][0-9]{0,17})$"
_DECIMAL = r"^-?(0|[1-9][0-9]{0,31})(\.[0-9]{1,32})?$"


def answer_shapes(signature: type[dspy.Signature], style: OutputStyle) -> dict[str, AnswerShape]:
    """Return output name -> what its value looks like in `style`.

    Raises:
        ConfigError: an output has a type whose values cannot be written so that DSPy surely reads them.
    """
    return {name: _shape(name, info, style == "json") for name, info in signature.output_fields.items()}


def _shape(name: str, info: FieldInfo, as_json: bool) -> AnswerShape:
    annotation = info.annotation
    members = list(_members(annotation))
    text = any(_is_text(member) for member in members)
    if text and len(members) > 1 and not {str, types.NoneType} <= set(members):
        raise _unreadable(name, annotation, "DSPy reads a text for it as JSON first")
    if text and not as_json:
        return ANY_TEXT
    choices: list[str] = []
    others: list[Any] = []
    for member in members:
        values = _finite(member)
        if values is not None:
            choices += [_choice(name, annotation, value, as_json) for value in values]
        elif not _is_text(member):
            others.append(_limited(member, info.metadata))
    formats, schema = _schema(name, annotation, others, as_json)
    return AnswerShape(text, tuple(dict.fromkeys(choices)), formats, schema)


def _members(annotation: Any) -> Iterator[Any]:
    """Yield the types of which a value has one."""
    if get_origin(annotation) in (Union, types.UnionType):
        for member in get_args(annotation):
            yield from _members(member)
    else:
        yield types.NoneType if annotation is None else annotation


def _is_text(member: Any) -> bool:
    return member is str or (isinstance(member, type) and issubclass(member, _TEXT_TYPES[1:]))


def _finite(member: Any) -> list[Any] | None:
    """Return the values of a type that has few; None for others."""
    if member is bool:
        return [True, False]
    if member is types.NoneType:
        return [None]
    if get_origin(member) is Literal:
        return list(get_args(member))
    if isinstance(member, enum.EnumMeta):
        return list(member)
    return None


def _choice(name: str, annotation: Any, value: Any, as_json: bool) -> str:
    """Return the first way to write `value`, the usual one first, that DSPy reads as `value` again."""
    plain: JsonValue = serialize_for_json(value)
    quoted = json_text(plain)
    by_name = [value.name] if isinstance(value, enum.Enum) else []
    if as_json:
        written = [quoted, json_text(quoted), *map(json_text, by_name)]
    else:
        written = [value_text(FieldSpec(name, type_name="Any"), plain), quoted, *by_name]
    for text in written:
        try:
            read = parse_value(json.loads(text) if as_json else text, annotation)
        except ValueError:
            continue
        if read == value and type(read) is type(value):
            return text
    raise _unreadable(name, annotation, f"DSPy does not read {value!r} back from any way of writing it")


def _limited(member: Any, limits: list[Any]) -> Any:
    """Return `member` with the limits of its field, such as ge=0, where they apply to it."""
    if not limits:
        return member
    limited: Any = Annotated[member, *limits]
    try:
        TypeAdapter(limited)
    except (PydanticUserError, TypeError):
        return member
    return limited


def _schema(
    name: str, annotation: Any, members: list[Any], as_json: bool
) -> tuple[tuple[str, ...], Mapping[str, Any] | None]:
    """Return the formats and the JSON schema of the types that have no short list of values."""
    if not members:
        return (), None
    try:
        union: Any = Union[tuple(members)]  # noqa: UP007
        schema = TypeAdapter(union).json_schema(schema_generator=_AsItIsRead)
    except (PydanticUserError, TypeError) as error:
        raise _unreadable(name, annotation, str(error).splitlines()[0]) from error
    options = schema.get("anyOf", [schema])
    tops = [resolved(option["$ref"], schema) if "$ref" in option else option for option in options]
    formats = tuple(str(top["format"]) for top in tops if _is_format(top))
    rest = [option for option, top in zip(options, tops, strict=True) if top.get("type") != "string"]
    for top in tops:
        if top.get("type") == "string" and not _is_format(top) and top.get("pattern") != _DECIMAL:
            raise _unreadable(name, annotation, "DSPy reads a text for it as JSON first")
        if top.get("pattern") == _DECIMAL and as_json:
            rest.append(top)
    return formats, {"anyOf": rest, "$defs": schema.get("$defs", {})} if rest else None


def _is_format(schema: Mapping[str, Any]) -> bool:
    return schema.get("type") == "string" and schema.get("format") in FORMATS and "pattern" not in schema


class _AsItIsRead(GenerateJsonSchema):
    """Pydantic's schemas, with what they leave out although the validator insists on it."""

    def decimal_schema(self, schema: Any) -> JsonSchemaValue:
        """A number, or the text of one, which is what pydantic itself writes; only a number where it has bounds."""
        number: JsonSchemaValue = next(
            (one for one in super().decimal_schema(schema).get("anyOf", ()) if one["type"] == "number"), {}
        )
        return {"anyOf": [number, {"type": "string", "pattern": _DECIMAL}]} if number.keys() == {"type"} else number

    def dict_schema(self, schema: Any) -> JsonSchemaValue:
        """Keys that are whole numbers are texts that look like one."""
        full = super().dict_schema(schema)
        if schema.get("keys_schema", {}).get("type") == "int":
            full["propertyNames"] = {"type": "string", "pattern": _WHOLE_NUMBER}
        return full


def _unreadable(name: str, annotation: Any, why: str) -> ConfigError:
    return ConfigError(
        f"The output {name!r} has the type {get_annotation_name(annotation)}, to which an answer cannot be "
        f"constrained: {why}. Use str, numbers, bool, Literal, an Enum, lists, dicts or pydantic models, or a layout "
        "with constrained=False."
    )
