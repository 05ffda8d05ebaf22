"""JSON schema -> Python type: how an artifact's field types come back without any code of the artifact's.

Reads the schemas that pydantic writes for str, int, float, bool, None, Literal, Enum, dates, list, set, tuple, dict,
unions, and models of them. What a schema cannot say (validators, methods) is not there.
"""

import enum
import keyword
import warnings
from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from typing import Annotated, Any, Literal, Union
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, JsonValue, create_model

from promptopt.errors import ConfigError

Schema = Mapping[str, JsonValue]

_PLAIN: dict[str, Any] = {"integer": int, "number": float, "boolean": bool, "null": None, "string": str}
_FORMATS: dict[str, Any] = {"date-time": datetime, "date": date, "time": time, "duration": timedelta, "uuid": UUID}
_LIMITS = {
    "minimum": "ge", "exclusiveMinimum": "gt", "maximum": "le", "exclusiveMaximum": "lt", "multipleOf": "multiple_of",
    "minLength": "min_length", "maxLength": "max_length", "minItems": "min_length", "maxItems": "max_length",
    "pattern": "pattern",
}  # fmt: skip
_MOST_LEVELS = 32


def type_of_schema(schema: Schema, *, bare: bool = False) -> Any:
    """Return the Python type whose values `schema` describes.

    Args:
        bare: whether an array or object of anything is `list` or `dict`, or `list[Any]` or `dict[str, Any]`; their
            schemas are the same.

    Raises:
        ConfigError: the schema has no such type, or one that refers to itself.
    """
    definitions = schema.get("$defs", {})
    return _Reader(definitions if isinstance(definitions, dict) else {}, bare).read(schema, 0)


class _Reader:
    def __init__(self, definitions: Mapping[str, Any], bare: bool) -> None:
        self.definitions, self.bare = definitions, bare
        self.known: dict[str, Any] = {}

    def read(self, schema: Any, level: int) -> Any:
        if not isinstance(schema, dict) or level > _MOST_LEVELS:
            raise _unknown(schema)
        if "$ref" in schema:
            return self.referred(str(schema["$ref"]), level)
        if "enum" in schema or "const" in schema:
            return _choice(schema)
        if "anyOf" in schema:
            members = tuple(self.read(member, level + 1) for member in _items(schema["anyOf"]))
            return Union[members]  # noqa: UP007
        match schema.get("type"):
            case None if not schema.keys() - {"title", "description", "$defs"}:
                return Any
            case "array":
                return _limited(self.array(schema, level), schema)
            case "object":
                return _limited(self.object(schema, level), schema)
            case "string" if "format" in schema:
                return _known(_FORMATS, schema["format"], schema)
            case kind:
                return _limited(_known(_PLAIN, kind, schema), schema)

    def referred(self, reference: str, level: int) -> Any:
        name = reference.removeprefix("#/$defs/")
        if name not in self.known:
            if name not in self.definitions:
                raise ConfigError(f"it refers to {reference!r}, which it does not define")
            # While it is read: a definition inside itself.
            self.known[name] = None
            self.known[name] = self.read(self.definitions[name], level + 1)
        if self.known[name] is None:
            raise ConfigError(f"the type {name!r} refers to itself")
        return self.known[name]

    def array(self, schema: Schema, level: int) -> Any:
        if "prefixItems" in schema:
            return tuple[tuple(self.read(item, level + 1) for item in _items(schema["prefixItems"]))]  # type: ignore[misc]
        inner = schema.get("items", {})
        kind: Any = set if schema.get("uniqueItems") else list
        if inner == {} and self.bare:
            return kind
        return kind[self.read(inner, level + 1)]

    def object(self, schema: Schema, level: int) -> Any:
        if "properties" in schema or "additionalProperties" not in schema:
            return self.model(schema, level)
        inner = schema["additionalProperties"]
        if inner is True:
            return dict if self.bare else dict[str, Any]
        return dict[str, self.read(inner, level + 1)]  # type: ignore[misc]

    def model(self, schema: Schema, level: int) -> type[BaseModel]:
        name = schema.get("title")
        properties = schema.get("properties", {})
        if not isinstance(name, str) or not isinstance(properties, dict):
            raise _unknown(schema)
        required = schema.get("required", [])
        fields: dict[str, Any] = {}
        for key, inner in properties.items():
            if not key.isidentifier() or keyword.iskeyword(key) or key.startswith("_") or not isinstance(inner, dict):
                raise ConfigError(f"the model {name!r} has a field {key!r}, which no Python model can have")
            about: dict[str, Any] = {word: inner[word] for word in ("title", "description") if word in inner}
            if not isinstance(required, list) or key not in required:
                about["default"] = inner.get("default")
            fields[key] = (self.read(inner, level + 1), Field(**about))
        config = ConfigDict(protected_namespaces=())
        if schema.get("additionalProperties") is False:
            config["extra"] = "forbid"
        described = schema.get("description")
        with warnings.catch_warnings():
            # A field called "json" hides a method of the model, as it did in the original.
            warnings.simplefilter("ignore", UserWarning)
            made: type[BaseModel] = create_model(
                name, __config__=config, __doc__=described if isinstance(described, str) else None, **fields
            )
        return made


def _choice(schema: Schema) -> Any:
    values = _items(schema["enum"]) if "enum" in schema else [schema["const"]]
    if not values or not all(isinstance(value, str | int | bool | None) for value in values):
        raise _unknown(schema)
    title = schema.get("title")
    if not isinstance(title, str):
        return Literal[tuple(values)]
    # A Literal has no title, an Enum has. The names of its members are not in the schema, their values are.
    mixin = {"string": (str,), "integer": (int,)}.get(str(schema.get("type")), ())
    members = {_member_name(value, number): value for number, value in enumerate(values)}
    return enum.Enum(title, members, type=mixin[0]) if mixin else enum.Enum(title, members)


def _member_name(value: JsonValue, number: int) -> str:
    fits = isinstance(value, str) and value.isidentifier() and not value.startswith("_") and value != "mro"
    return str(value) if fits else f"value_{number}"


def _limited(made: Any, schema: Schema) -> Any:
    limits = {name: schema[key] for key, name in _LIMITS.items() if key in schema}
    if not limits or "prefixItems" in schema:
        return made
    return Annotated[made, Field(**limits)]  # type: ignore[call-overload]


def _items(values: JsonValue) -> list[JsonValue]:
    if not isinstance(values, list) or not values:
        raise _unknown(values)
    return values


def _known(table: Mapping[str, Any], kind: JsonValue, schema: Schema) -> Any:
    if not isinstance(kind, str) or kind not in table:
        raise _unknown(schema)
    return table[kind]


def _unknown(schema: object) -> ConfigError:
    text = repr(schema)
    return ConfigError(f"no Python type stands for the JSON schema {text if len(text) < 120 else text[:117] + '...'}")
