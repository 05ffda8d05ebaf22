"""JSON schemas as GBNF: `SchemaRules` writes the values that a schema allows.

What lives here: one writer per type. Everything the grammar writes is allowed by the schema; not everything the
schema allows is written: members stand in the order of `properties`, extra members only where there are no
`properties`, a list with `prefixItems` has one length, `oneOf` is read as `anyOf`. An unknown `format` says nothing,
as the standard has it. A keyword that cannot be expressed is refused. It does not know who asks.
"""

import math
from collections.abc import Callable
from typing import Any

from promptopt.errors import ConfigError
from promptopt.layout.gbnf import chars, numbers
from promptopt.layout.gbnf.json_strings import FORMATS
from promptopt.layout.gbnf.json_text import JsonText
from promptopt.layout.gbnf.patterns import MAX_REPEATS, matching
from promptopt.layout.gbnf.schema_parts import (
    OF_TYPE,
    Schema,
    bounds,
    counts,
    fixed_values,
    kinds_of,
    merged,
    names_only,
    refused,
    resolved,
    said,
)


class SchemaRules:
    """Adds the rules of one schema's values.

    Args:
        text: how JSON is written.
        whole: the whole schema; references point into it.
        lenient: whether the reader of the answers takes repeated items for a set, and long strings are no trouble, so
            that "uniqueItems" and lengths that cannot be expressed may be left out.
    """

    def __init__(self, text: JsonText, whole: Schema, *, lenient: bool = False) -> None:
        self._text = text
        self._whole = whole
        self._lenient = lenient
        self._refs: dict[str, str] = {}

    def expression(self, schema: Any, name: str, within: frozenset[str] = frozenset()) -> str:
        """Return an expression for the values that `schema` allows: one name, literal or pair of brackets.

        Args:
            schema: a part of the whole schema; True allows everything.
            name: of rules that this takes.
            within: references that are being followed, with nothing written yet.

        Raises:
            ConfigError: it is no schema, allows nothing, or holds what a grammar cannot express.
        """
        meant = {} if schema is True else said(schema, name)
        if meant.keys() == {"$ref"}:
            return self._reference(str(meant["$ref"]), within)
        if "$ref" in meant or "allOf" in meant:
            meant = merged(meant, self._whole)
        options = self._options(meant)
        if options is None:
            return self._single(meant, name)
        return chars.alternatives([self.expression(one, f"{name}-{n}", within) for n, one in enumerate(options, 1)])

    def _options(self, meant: Schema) -> list[Any] | None:
        """Return the schemas of which one has to hold; None if there is nothing to choose."""
        if "anyOf" in meant and "oneOf" in meant:
            raise refused("anyOf beside oneOf")
        options = meant.get("anyOf", meant.get("oneOf"))
        if options is not None:
            rest = {key: value for key, value in meant.items() if key not in ("anyOf", "oneOf")}
            return [merged({**rest, "allOf": [one]}, self._whole) for one in options] if rest else list(options)
        kinds = kinds_of(meant)
        if len(kinds) < 2 or "enum" in meant or "const" in meant:
            return None
        return [{**names_only(meant, OF_TYPE.get(kind, OF_TYPE["number"])), "type": kind} for kind in kinds]

    def _single(self, meant: Schema, name: str) -> str:
        if "enum" in meant or "const" in meant:
            return chars.alternatives([self._text.fixed(value) for value in fixed_values(meant)])
        kinds = kinds_of(meant)
        if not kinds:
            return self._text.any_value()
        writers: dict[str, Callable[[Schema, str], str]] = {
            "string": self._string,
            "integer": self._integer,
            "number": self._number,
            "array": self._array,
            "object": self._object,
            "boolean": lambda meant, name: self._text.boolean(),
            "null": lambda meant, name: '"null"',
        }
        if kinds[0] not in writers:
            raise ConfigError(f"The JSON schema has the type {kinds[0]!r}; allowed are {', '.join(writers)}.")
        return writers[kinds[0]](meant, name)

    def _reference(self, ref: str, within: frozenset[str]) -> str:
        if ref in within:
            raise ConfigError(f"The JSON schema's reference {ref!r} leads to itself and to nothing else. Correct it.")
        if ref not in self._refs:
            self._refs[ref] = name = self._text.rules.reserve(ref.rsplit("/", 1)[-1])
            self._text.rules.define(name, self.expression(resolved(ref, self._whole), name, within | {ref}))
        return self._refs[ref]

    def _string(self, meant: Schema, name: str) -> str:
        strings = self._text.strings
        low, high = counts(meant, "Length", 10**9 if self._lenient else MAX_REPEATS)
        low, high = min(low, MAX_REPEATS), None if high is None or high > MAX_REPEATS else high
        bounded = low > 0 or high is not None
        if "pattern" in meant:
            if bounded and not self._lenient:
                raise refused("minLength or maxLength beside pattern")
            body = matching(str(meant["pattern"]), strings.one_of, strings.char())
        elif meant.get("format") in FORMATS:
            body = FORMATS[meant["format"]]
        elif bounded:
            body = f"{strings.char()}{{{low},{'' if high is None else high}}}"
        else:
            return strings.any()
        return self._text.rules.add(name, f'"\\"" {body} "\\""')

    def _integer(self, meant: Schema, name: str) -> str:
        if meant.get("multipleOf", 1) != 1:
            raise refused("multipleOf")
        low, high, above, below = bounds(meant)
        if low is None and high is None:
            return self._text.integer()
        first = None if low is None else math.floor(low) + 1 if above else math.ceil(low)
        last = None if high is None else math.ceil(high) - 1 if below else math.floor(high)
        return self._text.rules.add(name, numbers.integer(first, last))

    def _number(self, meant: Schema, name: str) -> str:
        if "multipleOf" in meant:
            raise refused("multipleOf")
        low, high, above, below = bounds(meant)
        if low is None and high is None:
            return self._text.number()
        return self._text.rules.add(name, numbers.number(low, high, above=above, below=below))

    def _array(self, meant: Schema, name: str) -> str:
        if meant.get("uniqueItems") and not self._lenient:
            raise refused("uniqueItems")
        low, high = counts(meant, "Items")
        rest = meant.get("items", True)
        first = [self.expression(one, f"{name}-{n}") for n, one in enumerate(meant.get("prefixItems", ())[:high], 1)]
        if rest is False and len(first) < low:
            raise ConfigError(f"The JSON schema has minItems {low} and allows {len(first)} items. Correct the schema.")
        if rest is False or (first and len(first) >= low):
            return self._text.items(first)
        item = self.expression(rest, f"{name}-item")
        if first:
            return self._text.items([*first, *[item] * (low - len(first))])
        return self._text.rules.add(name, self._text.array(item, low, high))

    def _object(self, meant: Schema, name: str) -> str:
        properties, extra = dict(meant.get("properties", {})), meant.get("additionalProperties", True)
        required = list(meant.get("required", ()))
        missing = [key for key in required if key not in properties]
        if missing and extra is False:
            raise ConfigError(f"The JSON schema requires {missing} and forbids additional properties. Correct it.")
        properties |= dict.fromkeys(missing, extra)
        if not properties:
            return self._mapping(meant, name, extra)
        beside = {"minProperties", "maxProperties", "propertyNames", "patternProperties"} & meant.keys()
        if beside:
            raise refused(f"{', '.join(sorted(beside))} beside properties")
        members = [
            (self._text.member(self._text.fixed(key), self.expression(one, f"{name}-{key}")), key not in required)
            for key, one in properties.items()
        ]
        return self._text.rules.add(name, self._text.object(name, members))

    def _mapping(self, meant: Schema, name: str, extra: Any) -> str:
        """Write an object whose names are not fixed. Names may repeat, so that a least number above 1 means nothing."""
        low, high = counts(meant, "Properties")
        patterns = dict(meant.get("patternProperties", {}))
        names = meant.get("propertyNames", True)
        if low > 1 or len(patterns) > 1 or (patterns and names is not True):
            raise refused("minProperties above 1, several patternProperties, or propertyNames beside them")
        for pattern, value in patterns.items():
            names, extra = {"pattern": pattern}, value
        if extra is False:
            high = 0
        if extra is True and names is True and not low and high is None:
            return self._text.any_object()
        if low and high == 0:
            raise ConfigError("The JSON schema wants a property of an object and allows none. Correct the schema.")
        key = self._text.strings.any()
        if names is not True:
            key = self.expression(merged({"type": "string", "allOf": [names]}, self._whole), f"{name}-name")
        value = self._text.any_value() if high == 0 else self.expression(extra, f"{name}-value")
        return self._text.rules.add(name, self._text.mapping(key, value, low, high))
