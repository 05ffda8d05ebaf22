"""Sets of characters as ranges of code points, and how GBNF writes them.

What lives here: set operations, the sets that more than one file needs, and the partition of all characters into those
that no rule tells apart. It does not know what is said with them.
"""

import functools
import itertools
import re
from collections.abc import Iterable, Sequence

Ranges = tuple[tuple[int, int], ...]
"""Sorted, disjoint (first, last) code points."""

TOP = 0x10FFFF
_SHOWN_IN_CLASS = frozenset("!#$%&'()*+,./:;<=>?@_`{|}~ ")


def of(text: str) -> Ranges:
    """Return the characters of `text`."""
    return union(*(((ord(char), ord(char)),) for char in text))


def span(first: str, last: str) -> Ranges:
    """Return the characters from `first` to `last`."""
    return ((ord(first), ord(last)),)


def union(*sets: Ranges) -> Ranges:
    """Return the characters that are in any of `sets`."""
    merged: list[tuple[int, int]] = []
    for first, last in sorted(itertools.chain.from_iterable(sets)):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return tuple(merged)


def complement(chars: Ranges) -> Ranges:
    """Return the characters that are not in `chars`."""
    gaps, start = [], 0
    for first, last in chars:
        if first > start:
            gaps.append((start, first - 1))
        start = last + 1
    return (*gaps, (start, TOP)) if start <= TOP else tuple(gaps)


def minus(chars: Ranges, taken: Ranges) -> Ranges:
    """Return the characters of `chars` that are not in `taken`."""
    return complement(union(complement(chars), taken))


def contains(chars: Ranges, code: int) -> bool:
    """Return whether `code` is one of `chars`."""
    return any(first <= code <= last for first, last in chars)


def atoms(sets: Iterable[Ranges]) -> list[Ranges]:
    """Split all characters into the fewest sets of which each lies wholly inside or outside of every set in `sets`."""
    known = list(dict.fromkeys(sets))
    edges = sorted({0, TOP + 1, *(edge for chars in known for first, last in chars for edge in (first, last + 1))})
    groups: dict[tuple[bool, ...], list[tuple[int, int]]] = {}
    for start, after in itertools.pairwise(edges):
        groups.setdefault(tuple(contains(chars, start) for chars in known), []).append((start, after - 1))
    return [union(tuple(group)) for group in groups.values()]


# What str.isspace, str.strip and \s call white space.
WHITE: Ranges = union(
    ((9, 13), (28, 32), (0x85, 0x85), (0xA0, 0xA0), (0x1680, 0x1680), (0x2000, 0x200A), (0x2028, 0x2029)),
    ((0x202F, 0x202F), (0x205F, 0x205F), (0x3000, 0x3000)),
)
CONTROL: Ranges = ((0, 31),)
DIGITS = span("0", "9")
# \w, and more: the exact set has some seven hundred ranges. Used only to say what text must not contain.
WORD_OR_FOREIGN = union(DIGITS, span("A", "Z"), span("a", "z"), of("_"), ((0x80, TOP),))


@functools.cache
def alike(char: str) -> Ranges:
    """Return the characters of the basic plane that a case-insensitive pattern takes for `char`."""
    return union(of(char), of("".join(re.findall(re.escape(char), _basic_plane(), re.IGNORECASE))))


@functools.cache
def _basic_plane() -> str:
    return "".join(map(chr, (*range(0xD800), *range(0xE000, 0x10000))))


def class_text(chars: Ranges) -> str:
    """Return `chars` as a GBNF character class.

    A negated class names ASCII characters only: on half a character, which is what many tokens of a Japanese text are,
    llama.cpp lets a negated class refuse everything that might still become a member.
    """
    outside = complement(chars)
    if outside and all(last < 0x80 for _, last in outside):
        return f"[^{_members(outside)}]"
    return f"[{_members(chars)}]"


def _members(chars: Ranges) -> str:
    return "".join(_shown(first) if first == last else f"{_shown(first)}-{_shown(last)}" for first, last in chars)


def _shown(code: int) -> str:
    char = chr(code)
    if char in _SHOWN_IN_CLASS or (char.isascii() and char.isalnum()):
        return char
    return escape(char)


def escape(char: str) -> str:
    """Return `char` as GBNF writes a character by its number; the usual ones by their letters."""
    short: dict[str, str] = {"\n": "\\n", "\r": "\\r", "\t": "\\t", "\\": "\\\\", '"': '\\"', "[": "\\[", "]": "\\]"}
    if char in short:
        return short[char]
    code = ord(char)
    return f"\\x{code:02X}" if code < 0x100 else f"\\u{code:04X}" if code < 0x10000 else f"\\U{code:08X}"


def literal(text: str) -> str:
    """Return `text` as a GBNF literal."""
    shown = (char if char.isprintable() and char not in '\\"' else escape(char) for char in text)
    return '"' + "".join(shown) + '"'


def alternatives(options: Sequence[str]) -> str:
    """Return a GBNF expression for any one of `options`, in brackets where there are several."""
    return options[0] if len(options) == 1 else f"( {' | '.join(options)} )"
