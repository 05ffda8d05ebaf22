"""Numbers in English and Japanese text by their value: digits, number words, kanji. Knows no units."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from promptopt.metrics.answers import Language

_DIGITS = re.compile(r"(?<![\w.])-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?=[^\d]|$)")
_DIGITS_ANYWHERE = re.compile(r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?")
_ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
).split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
_WORD_VALUES = (
    dict(zip(_ONES, range(20), strict=True))
    | dict(zip(_TENS, range(20, 100, 10), strict=True))
    | {"first": 1, "second": 2, "third": 3, "once": 1, "twice": 2, "dozen": 12, "single": 1, "double": 2}
)
_SCALES = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9}
_NUMBER_WORDS = re.compile(
    rf"\b(?:{'|'.join([*_WORD_VALUES, *_SCALES])})(?:[\s-]+(?:and\s+)?(?:{'|'.join([*_WORD_VALUES, *_SCALES])}))*\b",
    re.IGNORECASE,
)
_KANJI = {digit: value for value, digit in enumerate("〇一二三四五六七八九")}
_KANJI_SCALES = {"十": 10, "百": 100, "千": 1000}
_KANJI_MYRIADS = {"万": 10**4, "億": 10**8, "兆": 10**12}
_JA_NUMBER = re.compile(r"(?:(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|[〇一二三四五六七八九十百千万億兆])+")
# A kanji numeral is surely a number only before one of these: 一般 is a word, 一人 is not.
_COUNTER = re.compile(
    r"(?:人|名|年|月|日|円|個|件|回|歳|時|分|秒|条|項|号|章|か月|ヶ月|箇月|%|割|倍|位|冊|本|社|校|台|階)"
)


@dataclass(frozen=True)
class Amount:
    """A number as it stands in a text, from `start` to `end`."""

    value: float
    text: str
    start: int
    end: int


def amounts_in(text: str, language: Language, claimed: bool = False) -> Iterator[Amount]:
    """Yield the numbers of `text` (NFKC).

    Args:
        claimed: only those that an answer surely states as numbers: digits, and in Japanese kanji before a counter.
            Else everything that may be read as a number, every run of digits inside a longer code too.
    """
    if language == "ja":
        yield from _japanese(text, claimed)
    else:
        for match in _DIGITS.finditer(text):
            scale = re.match(r"\s*-?(hundred|thousand|million|billion)\b", text[match.end() :], re.IGNORECASE)
            value = float(match[0].replace(",", ""))
            if scale:
                value *= _SCALES[scale[1].lower()]
            yield Amount(value, match[0] + (scale[0] if scale else ""), match.start(), match.end())
    if not claimed:
        for match in _DIGITS_ANYWHERE.finditer(text):
            yield Amount(float(match[0].replace(",", "")), match[0], match.start(), match.end())
        for match in _NUMBER_WORDS.finditer(text):
            yield Amount(_words_value(match[0]), match[0], match.start(), match.end())


def _words_value(said: str) -> float:
    total = current = 0
    for word in re.findall(r"[a-z]+", said.lower()):
        if word in _SCALES:
            current = max(current, 1) * _SCALES[word]
            if _SCALES[word] > 100:
                total, current = total + current, 0
        else:
            current += _WORD_VALUES.get(word, 0)
    return float(total + current)


def _japanese(text: str, claimed: bool) -> Iterator[Amount]:
    for match in _JA_NUMBER.finditer(text):
        has_digit = any(letter.isdigit() and letter.isascii() for letter in match[0])
        if claimed and not has_digit and not _COUNTER.match(text, match.end()):
            continue
        value = _japanese_value(match[0])
        if value is not None:
            yield Amount(value, match[0], match.start(), match.end())


def _japanese_value(said: str) -> float | None:
    """Return the value of 1万6500, 二千二十四, 二〇二四 or 16,500; None where it is no number by itself (万)."""
    total = section = 0.0
    pending: float | None = None
    for piece in re.findall(r"[\d,]+(?:\.\d+)?|.", said):
        if piece[0].isdigit() and piece[0].isascii():
            pending = float(piece.replace(",", ""))
        elif piece in _KANJI:
            pending = (pending or 0) * 10 + _KANJI[piece]
        elif piece in _KANJI_SCALES:
            section += (1 if pending is None else pending) * _KANJI_SCALES[piece]
            pending = None
        elif piece in _KANJI_MYRIADS:
            section += pending or 0
            if not section:
                return None
            total, section, pending = total + section * _KANJI_MYRIADS[piece], 0.0, None
    return total + section + (pending or 0)
