"""JSON text as GBNF: any value, lists and objects of given parts, in one spacing.

What lives here: the brackets, commas and colons of JSON. It does not know schemas (json_schema).
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pydantic import JsonValue

from promptopt.layout.gbnf.chars import literal
from promptopt.layout.gbnf.json_strings import JsonStrings
from promptopt.layout.gbnf.numbers import ANY_INTEGER, ANY_NUMBER
from promptopt.layout.gbnf.rules import Rules


@dataclass(frozen=True)
class Spacing:
    """White space of JSON text, as GBNF expressions.

    Attributes:
        comma, colon: what stands between items, and between a name and its value.
        inside: what stands within brackets, at both ends.
    """

    comma: str
    colon: str
    inside: str


ONE_LINE = Spacing('", "', '": "', "")
"""As `json.dumps` writes, which is what answers and demos are written with."""

RELAXED = Spacing('"," ws', '":" ws', "ws")
"""On one line or indented over several, as models like to write. Bounded: white space without end is a way to hang."""

WHITE_SPACE = '( " " | "\\n" [ \\t]{0,20} )?'


def _same(text: str) -> str:
    return text


class JsonText:
    """Adds the rules of JSON text to `rules`.

    Args:
        rules: where they are added.
        spacing: white space.
        strings: which strings there are.
        guard: how the text of a fixed value is written where JSON stands inside an answer with marks.
    """

    def __init__(
        self, rules: Rules, spacing: Spacing, strings: JsonStrings, guard: Callable[[str], str] = _same
    ) -> None:
        self.rules = rules
        self.strings = strings
        self._spacing = spacing
        self._guard = guard
        self._any_names: tuple[str, str] | None = None
        if "ws" in spacing.inside:
            rules.add("ws", WHITE_SPACE)

    def fixed(self, value: JsonValue) -> str:
        """Return an expression for exactly this value."""
        return literal(self._guard(json.dumps(value, ensure_ascii=False)))

    def integer(self) -> str:
        """Return the name of the rule for any whole number."""
        return self.rules.add("integer", ANY_INTEGER)

    def number(self) -> str:
        """Return the name of the rule for any number."""
        return self.rules.add("number", ANY_NUMBER)

    def boolean(self) -> str:
        """Return the name of the rule for true and false."""
        return self.rules.add("boolean", '"true" | "false"')

    def any_object(self) -> str:
        """Return the name of the rule for any object."""
        return self._any()[1]

    def any_value(self) -> str:
        """Return the name of the rule for any value."""
        return self._any()[0]

    def _any(self) -> tuple[str, str]:
        if self._any_names is None:
            value = self.rules.reserve("value")
            members = self.rules.add("object", self.mapping(self.strings.any(), value, 0, None))
            items = self.rules.add("array", self.array(value, 0, None))
            kinds = [members, items, self.strings.any(), self.number(), self.boolean(), '"null"']
            self.rules.define(value, " | ".join(kinds))
            self._any_names = (value, members)
        return self._any_names

    def array(self, item: str, least: int, most: int | None) -> str:
        """Return an expression for a list of `least` to `most` items."""
        return self._bracketed("[]", self._repeated(item, least, most))

    def items(self, items: Sequence[str]) -> str:
        """Return an expression for a list of exactly these items."""
        return self._bracketed("[]", f" {self._spacing.comma} ".join(items))

    def mapping(self, name: str, value: str, least: int, most: int | None) -> str:
        """Return an expression for an object of `least` to `most` members with names and values of one kind."""
        return self._bracketed("{}", self._repeated(self.member(name, value), least, most))

    def object(self, name: str, members: Sequence[tuple[str, bool]]) -> str:
        """Return an expression for an object of these members in this order, given as (expression, may be left out)."""
        return self._bracketed("{}", self.rules.in_order(name, members, self._spacing.comma, empty=True))

    def member(self, name: str, value: str) -> str:
        """Return an expression for one member of an object; both are expressions."""
        return f"{name} {self._spacing.colon} {value}"

    def _repeated(self, item: str, least: int, most: int | None) -> str:
        if most == 0:
            return ""
        more = f"{{{max(least - 1, 0)},{'' if most is None else most - 1}}}".replace("{0,}", "*")
        items = item if most == 1 else f"{item} ( {self._spacing.comma} {item} ){more}"
        return items if least else f"( {items} )?"

    def _bracketed(self, brackets: str, content: str) -> str:
        inside = self._spacing.inside
        parts = [literal(brackets[0]), inside, content, inside if content else "", literal(brackets[1])]
        return " ".join(part for part in parts if part)
