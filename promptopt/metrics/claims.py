"""What an answer states that can be looked up: URLs, dates, numbers, quotes, names; and what a source says of each.

English and Japanese, by rule. Judges no meaning: a number that is right because it was added up is still not there.
"""

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from promptopt.metrics.amounts import amounts_in
from promptopt.metrics.answers import Language
from promptopt.metrics.dates import DATE, PartialDate, dates_in

KINDS = ("quotes", "urls", "dates", "numbers", "names")

_URL = re.compile(
    r"(?:https?://|www\.)[^\s<>\"'「」『』（）、。]+|(?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,63}\.[\w.-]{0,200}\w",
    re.IGNORECASE | re.ASCII,
)
_QUOTE = re.compile(r"\"([^\"\n]{2,300})\"|“([^“”\n]{2,300})”|「([^「」\n]{2,300})」|『([^『』\n]{2,300})』")
_CAPITAL = r"[A-Z][\w'’&-]*(?:\.[A-Z]\b)*"
_NAME_EN = re.compile(rf"\b{_CAPITAL}(?:\s+(?:(?:of|the|de|van|von|and)\s+)*{_CAPITAL})*")
_NAME_JA = re.compile(
    r"[ァ-ヴー・]{3,}|[A-Za-z][A-Za-z0-9&.-]+|[\u4e00-\u9fff々]{2,12}?(?:株式会社|大学|銀行|省|庁|県|市|氏|さん|先生|法(?=[第\s]))"
)
_SENTENCE_END = re.compile(r"[.!?:;\n\"“”(\[•*-]\s*$")
# Capitalised in English without being a name.
_NO_NAMES = frozenset(
    """i i'm i've i'd i'll ok yes no mr mrs ms dr the a an in on at of and but or if so it he she they we you this that
    january february march april may june july august september october november december monday tuesday wednesday
    thursday friday saturday sunday jan feb mar apr jun jul aug sep sept oct nov dec""".split()
)
_SMALL = frozenset("of the de van von and".split())


def plain_text(text: str) -> str:
    """Return `text` in NFKC with straight quotes and hyphens, as everything here compares it."""
    return unicodedata.normalize("NFKC", text).translate(str.maketrans("’‘‐‑–−", "''----"))


def claims_in(text: str, language: Language) -> Iterator[tuple[str, str]]:
    """Yield (kind, text) of everything in an answer that can be looked up, each once, no part of it twice."""
    rest = plain_text(text)
    seen = set()
    for kind in KINDS:
        found = list(_found(kind, rest, language))
        for said, _, _ in found:
            if (kind, said) not in seen:
                seen.add((kind, said))
                yield kind, said
        if kind in ("quotes", "urls", "dates"):
            # A number inside a date, or a name inside a quote, would be counted twice.
            for _, start, end in reversed(found):
                rest = rest[:start] + " | " + rest[end:]


def _found(kind: str, text: str, language: Language) -> Iterator[tuple[str, int, int]]:
    if kind == "urls":
        for match in _URL.finditer(text):
            yield match[0].rstrip(".,;:!?)"), match.start(), match.end()
    elif kind == "dates":
        for match in DATE.finditer(text):
            yield match[0], match.start(), match.end()
    elif kind == "numbers":
        for amount in amounts_in(text, language, claimed=True):
            yield amount.text, amount.start, amount.end
    elif kind == "quotes":
        for match in _QUOTE.finditer(text):
            yield next(filter(None, match.groups())), match.start(), match.end()
    else:
        yield from _names(text, language)


def _names(text: str, language: Language) -> Iterator[tuple[str, int, int]]:
    for match in (_NAME_JA if language == "ja" else _NAME_EN).finditer(text):
        words = match[0].split()
        if language == "en" and _begins_sentence(text, match.start()) and not _telling(words[0]):
            # The first word of a sentence is capitalised whatever it is.
            words = words[1:]
        while words and (words[0].lower() in _NO_NAMES or words[0].lower() in _SMALL):
            words = words[1:]
        if words and not (len(words) == 1 and len(words[0]) < 2):
            yield " ".join(words), match.start(), match.end()


def _begins_sentence(text: str, start: int) -> bool:
    # A few letters back are enough, and all of them would make long answers slow.
    before = text[max(0, start - 20) : start]
    return (start <= 20 and not before.strip()) or _SENTENCE_END.search(before) is not None


def _telling(word: str) -> bool:
    """Return whether a word is a name by itself: NASA, McDonald, iPhone."""
    return len(word) > 1 and any(letter.isupper() for letter in word[1:])


@dataclass(frozen=True)
class Source:
    """The inputs an answer must stand on; says whether something stands in them."""

    text: str
    language: Language = "en"

    def holds(self, kind: str, said: str) -> bool:
        """Return whether `said`, one of the `claims_in` an answer, stands here.

        URLs: without scheme and final slash. Dates: one that agrees in every part that is given. Numbers: the same
        value, in digits or words. Quotes: the same text, letter case, white space and punctuation at its ends aside.
        Names: every word of it (English), the same letters (Japanese).
        """
        if kind == "urls":
            return _bare_url(said) in self._urls_text
        if kind == "dates":
            return any(date.within(there) for date in dates_in(said) for there in self._dates)
        if kind == "numbers":
            return all(amount.value in self._amounts for amount in amounts_in(said, self.language))
        if kind == "names" and self.language == "en":
            return all(_root(word) in self._words for word in said.split() if word.lower() not in _SMALL)
        return _squeezed(said) in self._squeezed

    @cached_property
    def _plain(self) -> str:
        return plain_text(self.text)

    @cached_property
    def _urls_text(self) -> str:
        return re.sub(r"https?://|www\.", "", self._plain.lower())

    @cached_property
    def _dates(self) -> Sequence[PartialDate]:
        return tuple(dates_in(self._plain))

    @cached_property
    def _amounts(self) -> Mapping[float, str]:
        return {amount.value: amount.text for amount in amounts_in(self._plain, self.language)}

    @cached_property
    def _words(self) -> frozenset[str]:
        return frozenset(
            _root(word) for word in re.findall(r"[\w'&.-]+", self._plain) for word in (word, *word.split("-"))
        )

    @cached_property
    def _squeezed(self) -> str:
        return _squeezed(self._plain)


def _bare_url(url: str) -> str:
    return re.sub(r"^(?:https?://)?(?:www\.)?", "", url.lower()).rstrip("/")


def _root(word: str) -> str:
    return word.casefold().removesuffix("'s").strip("'.-&").replace(".", "")


def _squeezed(text: str) -> str:
    return "".join(text.casefold().split()).strip(".,;:!?。、")
