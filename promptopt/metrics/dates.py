"""Dates in English and Japanese text, as far as they are given. Knows no calendar arithmetic."""

import re
from collections.abc import Iterator
from dataclasses import astuple, dataclass

_MONTHS = "january february march april may june july august september october november december".split()
_MONTH = "|".join(f"{month[:3]}(?:{month[3:]})?" if len(month) > 3 else month for month in _MONTHS) + "|sept"
_ERAS = {"令和": 2018, "平成": 1988, "昭和": 1925, "大正": 1911, "明治": 1867}
_DAY = r"\d{1,2}(?:st|nd|rd|th)?"

DATE = re.compile(
    rf"(?P<iso>\b\d{{4}}[-/.]\d{{1,2}}[-/.]\d{{1,2}}\b)"
    rf"|(?P<slashed>\b\d{{1,2}}[/.]\d{{1,2}}[/.]\d{{4}}\b)"
    rf"|(?P<monthfirst>\b(?:{_MONTH})\b\.?\s+(?:{_DAY}\b(?:,?\s+\d{{4}}\b)?|\d{{4}}\b))"
    rf"|(?P<dayfirst>\b{_DAY}\s+(?:of\s+)?(?:{_MONTH})\b\.?(?:,?\s+\d{{4}}\b)?)"
    rf"|(?P<ja>(?:(?:{'|'.join(_ERAS)})\s*(?:\d+|元)年|\d{{4}}年)\s*(?:\d{{1,2}}月(?:\s*\d{{1,2}}日)?)?|\d{{1,2}}月\s*\d{{1,2}}日)",
    re.IGNORECASE,
)
"""A date with at least two parts, or a Japanese year; text in NFKC."""


@dataclass(frozen=True)
class PartialDate:
    """A date of which parts may be open (None)."""

    year: int | None = None
    month: int | None = None
    day: int | None = None

    def within(self, other: "PartialDate") -> bool:
        """Return whether `other` says everything that this date says."""
        return all(mine is None or mine == theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True))


def dates_in(text: str) -> Iterator[PartialDate]:
    """Yield the dates of `text` (NFKC). 3/4/2021 is two dates, as either order of day and month is in use."""
    for match in DATE.finditer(text):
        said, kind = match[0], match.lastgroup
        numbers = [int(number) for number in re.findall(r"\d+", said)]
        if kind == "iso":
            yield PartialDate(*numbers)
        elif kind == "slashed":
            first, second, year = numbers
            yield PartialDate(year, first, second)
            if first != second:
                yield PartialDate(year, second, first)
        elif kind == "ja":
            yield _japanese(said)
        else:
            name = re.search(_MONTH, said, re.IGNORECASE)
            assert name is not None
            month = next(n for n, long in enumerate(_MONTHS, 1) if long.startswith(name[0].lower()[:3]))
            day = next((number for number in numbers if number < 100), None)
            yield PartialDate(next((number for number in numbers if number >= 100), None), month, day)


def _japanese(said: str) -> PartialDate:
    def part(unit: str) -> int | None:
        found = re.search(rf"(\d+)\s*{unit}", said)
        return int(found[1]) if found else None

    year = part("年")
    era = next((name for name in _ERAS if said.startswith(name)), None)
    if era:
        year = _ERAS[era] + (year or 1)  # 元年 is the first
    return PartialDate(year, part("月"), part("日"))
