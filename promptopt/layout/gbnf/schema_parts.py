"""What a JSON schema's keywords say, before any of it becomes GBNF: references, `allOf`, bounds, counts.

What lives here: plain functions from schemas to values. It writes no grammar (json_schema).
"""

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

from pydantic import JsonValue

from promptopt.errors import ConfigError
from promptopt.layout.gbnf.patterns import MAX_REPEATS

Schema = Mapping[str, Any]

_KEYWORDS = {
    "string": "minLength maxLength pattern format",
    "number": "minimum maximum exclusiveMinimum exclusiveMaximum multipleOf",
    "array": "items prefixItems minItems maxItems uniqueItems",
    "object": "properties required additionalProperties propertyNames patternProperties minProperties maxProperties",
}
OF_TYPE: Mapping[str, frozenset[str]] = {kind: frozenset(words.split()) for kind, words in _KEYWORDS.items()}
"""Type -> keywords that say something about its values."""

SILENT = frozenset(
    "title description default example examples deprecated readOnly writeOnly discriminator contentMediaType "
    "contentEncoding $schema $id $comment $defs definitions".split()
)
"""Keywords that say nothing about which values are allowed."""

_KNOWN = SILENT.union(("type", "enum", "const", "anyOf", "oneOf", "allOf", "$ref"), *OF_TYPE.values())
_LARGER_WINS = frozenset(("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"))
_SMALLER_WINS = frozenset(("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"))


def refused(what: str) -> ConfigError:
    """Return the error for what a grammar cannot express."""
    return ConfigError(
        f"The JSON schema holds {what}, which a grammar cannot express. Leave it out and check the answer afterwards."
    )


def said(schema: Any, name: str) -> dict[str, Any]:
    """Return what `schema` says about its values, without titles, defaults and the like.

    Raises:
        ConfigError: it is no schema that allows anything, or has an unknown keyword.
    """
    if not isinstance(schema, Mapping):
        raise ConfigError(f"The JSON schema holds {schema!r} at {name!r}; allowed are objects and true.")
    unknown = sorted(key for key in schema if key not in _KNOWN and not key.startswith("x-"))
    if unknown:
        raise refused(f"{', '.join(unknown)} (at {name!r})")
    return {key: value for key, value in schema.items() if key not in SILENT and not key.startswith("x-")}


def resolved(ref: str, whole: Schema) -> Any:
    """Return the part of `whole` that a reference like "#/$defs/Name" points to.

    Raises:
        ConfigError: it points elsewhere, or to nothing.
    """
    found: Any = whole
    for step in ref.split("/")[1:] if ref.startswith("#/") or ref == "#" else ["?"]:
        key = step.replace("~1", "/").replace("~0", "~")
        if not isinstance(found, Mapping) or key not in found:
            raise ConfigError(
                f"The JSON schema has the reference {ref!r}, which points to nothing inside it. "
                "Allowed are references like '#/$defs/Name'."
            )
        found = found[key]
    return found


def merged(schema: Schema, whole: Schema, seen: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return one schema that says what `schema`, its reference and its `allOf` parts say together.

    Raises:
        ConfigError: they cannot be said in one schema, or a reference leads to itself.
    """
    ref = schema.get("$ref")
    if ref in seen:
        raise ConfigError(f"The JSON schema's reference {ref!r} leads to itself and to nothing else. Correct it.")
    parts = [*([resolved(ref, whole)] if ref is not None else []), *schema.get("allOf", ())]
    result = {key: value for key, value in said(schema, "allOf").items() if key not in ("$ref", "allOf")}
    for part in parts:
        if part is not True:
            _join(result, merged(said(part, "allOf"), whole, (*seen, ref) if ref is not None else seen))
    return result


def _join(result: dict[str, Any], more: Schema) -> None:
    for one, other in ((result, more), (more, result)):
        if one.get("additionalProperties") is False and other.get("properties", {}).keys() - one.get("properties", {}):
            raise refused("allOf parts of which one forbids the other's properties")
    for key, value in more.items():
        if key not in result or result[key] == value:
            result[key] = value
        elif key == "properties":
            both = {name: {"allOf": [result[key][name], value[name]]} for name in value if name in result[key]}
            result[key] = {**result[key], **value, **both}
        elif key == "required":
            result[key] = list(dict.fromkeys([*result[key], *value]))
        elif key == "enum":
            result[key] = [one for one in value if one in result[key]]
        elif key == "type" and {str(value), str(result[key])} == {"integer", "number"}:
            result[key] = "integer"
        elif key in _LARGER_WINS or key in _SMALLER_WINS:
            result[key] = max(result[key], value) if key in _LARGER_WINS else min(result[key], value)
        else:
            raise refused(f"allOf parts that differ in {key}")


def kinds_of(schema: Schema) -> list[str]:
    """Return the types that `schema` allows, or speaks of where it names none; empty for any."""
    kinds = schema.get("type")
    if kinds is None:
        return [kind for kind, keywords in OF_TYPE.items() if keywords & schema.keys()]
    return [kinds] if isinstance(kinds, str) else list(kinds)


def fixed_values(schema: Schema) -> list[JsonValue]:
    """Return the values that `enum` or `const` name and `type` allows.

    Raises:
        ConfigError: there is none.
    """
    beside = sorted(schema.keys() - {"enum", "const", "type"})
    if beside:
        raise refused(f"{', '.join(beside)} beside enum or const")
    values: list[JsonValue] = list(schema["enum"]) if "enum" in schema else [schema["const"]]
    if "enum" in schema and "const" in schema:
        values = [value for value in values if value == schema["const"]]
    kinds = kinds_of(schema)
    fitting = [value for value in values if not kinds or any(_has_type(value, kind) for kind in kinds)]
    if not fitting:
        raise ConfigError(f"The JSON schema allows {values} of type {kinds}, which is nothing. Correct the schema.")
    return fitting


def _has_type(value: JsonValue, kind: str) -> bool:
    if isinstance(value, bool) or value is None:
        return kind == ("null" if value is None else "boolean")
    types: dict[str, tuple[type, ...]] = {"integer": (int,), "number": (int, float), "string": (str,)}
    return isinstance(value, types.get(kind, (list,) if kind == "array" else (dict,)))


def bounds(schema: Schema) -> tuple[Decimal | None, Decimal | None, bool, bool]:
    """Return lowest and highest number, and whether each is itself left out."""
    low, above = _bound(schema.get("minimum"), schema.get("exclusiveMinimum"), max)
    high, below = _bound(schema.get("maximum"), schema.get("exclusiveMaximum"), min)
    return low, high, above, below


def _bound(closed: Any, opened: Any, stricter: Any) -> tuple[Decimal | None, bool]:
    for value in (closed, opened):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise ConfigError(f"The JSON schema bounds a number by {value!r}; allowed are numbers.")
    if opened is None:
        return (None if closed is None else Decimal(str(closed))), False
    if closed is None or stricter(closed, opened) == opened:
        return Decimal(str(opened)), True
    return Decimal(str(closed)), False


def counts(schema: Schema, of: str, largest: int = MAX_REPEATS) -> tuple[int, int | None]:
    """Return least and greatest number of what `of` says ("Length", "Items", "Properties").

    Raises:
        ConfigError: there is no number between them, or they are too large to be written out.
    """
    low, high = int(schema.get(f"min{of}", 0)), schema.get(f"max{of}")
    if high is not None and high < low:
        raise ConfigError(f"The JSON schema has min{of} {low} and max{of} {high}: nothing fits. Correct the schema.")
    if max(low, high or 0) > largest:
        raise refused(f"min{of} or max{of} above {largest}")
    return low, None if high is None else int(high)


def names_only(schema: Schema, keywords: Iterable[str]) -> dict[str, Any]:
    """Return `schema` with these keywords alone."""
    return {key: value for key, value in schema.items() if key in set(keywords)}
