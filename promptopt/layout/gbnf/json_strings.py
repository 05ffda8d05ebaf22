r"""JSON strings as GBNF: any string, strings of a length, of a format, and strings inside answers that have marks.

What lives here: the characters of a JSON string, each in one spelling, so that a length counts characters. A character
that must be escaped is; others may be (`\u00e9`), except for halves of surrogate pairs, which are no text.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from types import MappingProxyType

from promptopt.errors import ConfigError
from promptopt.layout.gbnf import chars
from promptopt.layout.gbnf.chars import CONTROL, DIGITS, Ranges, literal
from promptopt.layout.gbnf.free_text import Mark, Marks, add_machine
from promptopt.layout.gbnf.rules import Rules

ESCAPABLE = '"\\/bfnrt'
_HEX = chars.union(DIGITS, chars.span("a", "f"), chars.span("A", "F"))
_SCALAR = "( [0-9a-ce-fA-CE-F] [0-9a-fA-F]{3} | [dD] [0-7] [0-9a-fA-F]{2} )"
_ESCAPE = rf'"\\" ( ["\\/bfnrt] | "u" {_SCALAR} )'
_RAW = chars.minus(chars.complement(CONTROL), chars.of('"\\'))
_LETTERS = {8: "b", 9: "t", 10: "n", 12: "f", 13: "r"}

_YEAR = '( "000" [1-9] | "00" [1-9] [0-9] | "0" [1-9] [0-9]{2} | [1-9] [0-9]{3} )'
_FOURTH = '( "0" [48] | [2468] [048] | [13579] [26] )'
_DATE = (
    f'( {_YEAR} ( "-" ( "0" [1-9] | "1" [0-2] ) "-" ( "0" [1-9] | "1" [0-9] | "2" [0-8] )'
    ' | "-" ( "0" [13-9] | "1" [0-2] ) "-" ( "29" | "30" ) | "-" ( "0" [13578] | "1" [02] ) "-31" )'
    f' | ( {_FOURTH} "00" | [0-9]{{2}} {_FOURTH} ) "-02-29" )'
)
_CLOCK = '( [01] [0-9] | "2" [0-3] ) ":" [0-5] [0-9]'
_TIME = f'{_CLOCK} ":" [0-5] [0-9] ( "." [0-9]{{1,6}} )? ( "Z" | [+-] {_CLOCK} )?'
_COUNT = "[0-9]{1,6}"
_SECONDS = f'{_COUNT} ( "." [0-9]{{1,6}} )? "S"'
_SPAN = f'( {_COUNT} "H" ( {_COUNT} "M" )? ( {_SECONDS} )? | {_COUNT} "M" ( {_SECONDS} )? | {_SECONDS} )'
_OCTET = '( [0-9] | [1-9] [0-9] | "1" [0-9]{2} | "2" [0-4] [0-9] | "25" [0-5] )'

FORMATS: Mapping[str, str] = MappingProxyType(
    {
        "date": _DATE,
        "time": _TIME,
        "date-time": f'{_DATE} "T" {_TIME}',
        "duration": f'"-"? "P" ( {_COUNT} "D" ( "T" {_SPAN} )? | "T" {_SPAN} )',
        "uuid": '[0-9a-fA-F]{8} "-" [0-9a-fA-F]{4} "-" [0-9a-fA-F]{4} "-" [0-9a-fA-F]{4} "-" [0-9a-fA-F]{12}',
        "ipv4": '"."'.join([f" {_OCTET} "] * 4).strip(),
    }
)
"""Format of a JSON schema -> an expression for its text, without quotes. A time may come without a time zone."""


class JsonStrings:
    """Rules for JSON strings. With `marks` (of the answer around them) no string completes one.

    Args:
        rules: where they are added.
        marks: for JSON text, i.e. with a step for backslashes where the layout's escape puts them.
        guarded: texts that the layout writes with one backslash more behind their first character.
    """

    def __init__(self, rules: Rules, marks: Sequence[Mark] = (), guarded: Sequence[str] = ()) -> None:
        self._rules = rules
        self._marks = marks
        self._guarded = guarded
        self._any = ""

    def any(self) -> str:
        """Return the name of the rule for any string."""
        if not self._any:
            inside = self._marked() if self._marks else f'{self.char()}* "\\""'
            self._any = self._rules.add("string", f'"\\"" {inside}')
        return self._any

    def char(self) -> str:
        """Return the name of the rule for one character, in every spelling it may have."""
        # Inside marked answers "<" only as \u003c: counted characters cannot also be watched for a mark.
        raw = chars.minus(_RAW, chars.of("<")) if self._marks else _RAW
        return self._rules.add("char", f"{chars.class_text(raw)} | {_ESCAPE}")

    def one_of(self, wanted: Ranges) -> str:
        """Return an expression for one of the characters `wanted`, escaped where it must be."""
        raw = self._raw_of(wanted)
        options = [chars.class_text(raw)] if raw else []
        for code in (*range(32), *map(ord, '"\\')):
            if chars.contains(wanted, code):
                options.append(literal("\\" + (_LETTERS.get(code) or (chr(code) if code > 31 else f"u{code:04x}"))))
        if self._marks and chars.contains(wanted, ord("<")):
            options.append(literal("\\u003c"))
        if not options:
            raise ConfigError("A pattern of the schema has a set of characters that holds none. Correct the pattern.")
        return chars.alternatives(options)

    def _raw_of(self, wanted: Ranges) -> Ranges:
        raw = chars.minus(wanted, chars.complement(_RAW))
        return chars.minus(raw, chars.of("<")) if self._marks else raw

    def _marked(self) -> str:
        """Add the automaton of a string behind its opening quote: JSON's escapes and the marks, read side by side."""
        reader = Marks(self._marks)

        def read(state: Hashable, code: int) -> Hashable | None:
            assert isinstance(state, tuple)
            positions, mode = state
            next_mode = _MODES[mode](code)
            after = None if next_mode is None else reader.read(positions, code)
            return None if after is None else (after, next_mode)

        def leave(state: Hashable, start: str) -> Sequence[str]:
            assert isinstance(state, tuple)
            return ['"\\""', *(f"{one} {start}" for one in _guards(self._guarded))] if state[1] == "" else []

        sets = [CONTROL, chars.of('"'), chars.of("\\"), chars.of(ESCAPABLE), chars.of("u"), _HEX, chars.of("dD")]
        sets += [chars.span("0", "7"), *reader.sets()]
        return add_machine(self._rules, "marked", sets, (reader.start, ""), read, leave)


def _guards(guarded: Sequence[str]) -> list[str]:
    """Return how the guarded texts stand inside JSON: guard, JSON's own backslashes, the rest of the text.

    The backslashes behind the guard are JSON: in pairs they are backslashes; an odd one escapes the next character.
    """
    found = []
    for text in guarded:
        rest = text[1:]
        endings = [rest]
        if rest[0] in ESCAPABLE or (rest[0] == "u" and _is_scalar(rest[1:5])):
            endings.append("\\" + rest)
        found += [f"{literal(text[0] + chr(92))} ( {literal(chr(92) * 2)} )* {literal(ending)}" for ending in endings]
    return found


def _is_scalar(digits: str) -> bool:
    hexadecimal = len(digits) == 4 and all(chars.contains(_HEX, ord(digit)) for digit in digits)
    return hexadecimal and not 0xD800 <= int(digits, 16) <= 0xDFFF


def _plain(code: int) -> str | None:
    if code == ord("\\"):
        return "escape"
    return None if chars.contains(CONTROL, code) or code == ord('"') else ""


def _escaped(code: int) -> str | None:
    if code == ord("u"):
        return "u"
    return "" if chr(code) in ESCAPABLE else None


def _first_digit(code: int) -> str | None:
    if chr(code) in "dD":
        return "d"
    return "3" if chars.contains(_HEX, code) else None


_MODES: Mapping[str, Callable[[int], str | None]] = {
    "": _plain,
    "escape": _escaped,
    "u": _first_digit,
    "d": lambda code: "2" if chr(code) in "01234567" else None,
    "3": lambda code: "2" if chars.contains(_HEX, code) else None,
    "2": lambda code: "1" if chars.contains(_HEX, code) else None,
    "1": lambda code: "" if chars.contains(_HEX, code) else None,
}
