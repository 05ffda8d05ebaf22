r"""Regular expressions of JSON schemas as GBNF: a string whose text matches the pattern.

What lives here: translation of Python's reading of the pattern. Classes mean their ASCII members (`\d` is 0-9), so
that a string fits whether its reader is Python, ECMAScript or Rust. Look-around, back references, word boundaries and
flags have no counterpart in GBNF.
"""

import importlib
import re
from collections.abc import Callable, Sequence
from typing import Any

from promptopt.errors import ConfigError
from promptopt.layout.gbnf import chars
from promptopt.layout.gbnf.chars import Ranges

# The parser inside `re`: private, but the same in every Python since 3.11, and the only reading that cannot differ
# from the one with which answers are checked.
_parser: Any = importlib.import_module("re._parser")

_ASCII = chars.span("\x00", "\x7f")
_WORD = chars.union(chars.DIGITS, chars.span("a", "z"), chars.span("A", "Z"), chars.of("_"))
_SPACE = chars.of(" \t\n\r\f\v")
_CLASSES = {
    "CATEGORY_DIGIT": chars.DIGITS,
    "CATEGORY_NOT_DIGIT": chars.minus(_ASCII, chars.DIGITS),
    "CATEGORY_WORD": _WORD,
    "CATEGORY_NOT_WORD": chars.minus(_ASCII, _WORD),
    "CATEGORY_SPACE": _SPACE,
    "CATEGORY_NOT_SPACE": chars.minus(chars.complement(chars.WHITE), chars.of("\ufeff")),
}
_FOREIGN: Ranges = ((0x80, chars.TOP),)
# What any reader might count as a member: kept out of negated sets.
_WIDEST = {
    **{name: chars.union(members, _FOREIGN) for name, members in _CLASSES.items()},
    "CATEGORY_SPACE": chars.union(chars.WHITE, chars.of("\ufeff")),
    "CATEGORY_NOT_SPACE": chars.complement(_SPACE),
}
_LINE_ENDS = chars.of("\n\r\u2028\u2029")

MAX_REPEATS = 1000
"""Of one part of a pattern: llama.cpp writes every repetition out."""


def matching(pattern: str, one_of: Callable[[Ranges], str], any_char: str) -> str:
    """Return an expression for every text in which `pattern` is found.

    Args:
        pattern: as in a JSON schema: it may match anywhere unless it is anchored by ^ and $.
        one_of: expression for one character of a set, as the text is written down.
        any_char: expression for any character.

    Raises:
        ConfigError: it is no pattern, or holds what GBNF cannot say.
    """
    try:
        parsed = _parser.parse(pattern)
    except (re.error, OverflowError) as error:
        raise ConfigError(f"The schema's pattern {pattern!r} is no regular expression: {error}.") from error
    if parsed.state.flags & ~re.UNICODE:
        raise _refused(pattern, "a flag")
    return _Translation(pattern, one_of, any_char).whole(list(parsed))


class _Translation:
    def __init__(self, pattern: str, one_of: Callable[[Ranges], str], any_char: str) -> None:
        self._pattern = pattern
        self._one_of = one_of
        self._any_char = any_char

    def whole(self, items: list[Any]) -> str:
        """Return the pattern with whatever may stand around it."""
        from_start = bool(items) and _is(items[0], "AT", "AT_BEGINNING", "AT_BEGINNING_STRING")
        items = items[1:] if from_start else items
        around = "" if from_start else f"{self._any_char}* "
        if items and _is(items[-1], "BRANCH"):
            # re moves what alternatives have in common, such as ^, in front of them; each keeps its own $.
            options = [self._ended(list(option)) for option in items[-1][1][1]]
            return around + " ".join([*map(self._item, items[:-1]), chars.alternatives(options)])
        return around + self._ended(items)

    def _ended(self, items: list[Any]) -> str:
        if items and _is(items[-1], "AT", "AT_END", "AT_END_STRING"):
            return self._sequence(items[:-1])
        return f"{self._sequence(items)} {self._any_char}*"

    def _sequence(self, items: Sequence[Any]) -> str:
        return " ".join(map(self._item, items)) or '""'

    def _item(self, item: Any) -> str:
        kind, value = str(item[0]), item[1]
        if kind in ("LITERAL", "NOT_LITERAL", "ANY", "IN"):
            return self._one_of(self._set(kind, value))
        if kind == "SUBPATTERN" and not value[1] and not value[2]:
            return f"( {self._sequence(value[3])} )"
        if kind == "BRANCH":
            return f"( {' | '.join(self._sequence(option) for option in value[1])} )"
        if kind in ("MAX_REPEAT", "MIN_REPEAT"):
            low, high, inner = value
            if low > MAX_REPEATS or (high > MAX_REPEATS and high != _parser.MAXREPEAT):
                raise _refused(self._pattern, f"more than {MAX_REPEATS} repetitions")
            times = f"{{{low},}}" if high == _parser.MAXREPEAT else f"{{{low},{high}}}"
            return f"( {self._sequence(inner)} ){times}"
        raise _refused(self._pattern, kind.lower().replace("_", " "))

    def _set(self, kind: str, value: Any) -> Ranges:
        if kind == "ANY":
            return chars.complement(_LINE_ENDS)
        if kind in ("LITERAL", "NOT_LITERAL"):
            return ((value, value),) if kind == "LITERAL" else chars.complement(((value, value),))
        negated = str(value[0][0]) == "NEGATE"
        members = [self._member(str(op), content, negated) for op, content in value if str(op) != "NEGATE"]
        return chars.complement(chars.union(*members)) if negated else chars.union(*members)

    def _member(self, op: str, content: Any, negated: bool) -> Ranges:
        if op == "LITERAL":
            return ((content, content),)
        if op == "RANGE":
            return (content,)
        return (_WIDEST if negated else _CLASSES)[str(content)]


def _is(item: Any, kind: str, *values: str) -> bool:
    return str(item[0]) == kind and (not values or str(item[1]) in values)


def _refused(pattern: str, what: str) -> ConfigError:
    return ConfigError(
        f"The schema's pattern {pattern!r} holds {what}, which a grammar cannot express. Allowed are characters, "
        "classes, groups, alternatives and repetitions, with ^ and $ at the ends. Write it so, or leave it out."
    )
