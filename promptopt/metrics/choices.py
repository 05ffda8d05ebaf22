"""Multiple choice: the letter that an answer chooses, and whether the choice survives another order of the options."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations

from promptopt.errors import DataError
from promptopt.metrics.base import Fields, GoldMetric, Score
from promptopt.metrics.values import feedback, first_field, text_of

_ALONE = r"(?<![A-Za-z0-9])(?:[(\[「『\"'*]{{0,3}})([{letters}])(?![A-Za-z0-9'])"
_SAID = (
    r"(?:answers?|options?|choices?|correct|答え|回答|正解|解答|選択肢|正しいの|適切なの)"
    r"(?:\s*(?:is|was|should\s+be|option|answer|choice|は|:|=|が|「|\(|\*)\s*)*\s*"
)


def chosen_letter(text: str, letters: str = "abcd") -> str | None:
    """Return the letter in lower case that `text` chooses, or None where it chooses none or cannot be told.

    In this order: the whole text is one letter; the last letter after a word such as "answer is" or 答えは; the letter
    at the beginning ("c. Because", "c 第5条"); the one letter that stands alone anywhere. An English "a" before a word
    is no choice. Full-width letters count, brackets and quotes do not.
    """
    plain = unicodedata.normalize("NFKC", text).strip()
    bare = plain.strip(" .。、,:;()[]「」『』\"'*`\n\t").lower()
    if len(bare) == 1:
        return bare if bare in letters.lower() else None
    alone = _ALONE.format(letters=letters.lower() + letters.upper())
    said = [found[1] for found in re.finditer(_SAID + alone, plain, re.IGNORECASE) if not _article(plain, found)]
    if said:
        return said[-1].lower()
    first = re.match(alone, plain)
    several = re.compile(rf"\s*(?:or|and|/|,|、|と|か|または)\s*[{letters}](?![A-Za-z0-9])", re.IGNORECASE)
    if first and not _article(plain, first) and not several.match(plain, first.end()):
        return first[1].lower()
    found = {match[1].lower() for match in re.finditer(alone, plain) if not _article(plain, match)}
    return found.pop() if len(found) == 1 else None


def _article(text: str, match: re.Match[str]) -> bool:
    """Return whether the letter is the English article: "a" before another word."""
    return match[1] in "aA" and re.match(r"\s+(?!(?:or|and)\b)[A-Za-z]{2}", text[match.end() :]) is not None


@dataclass(frozen=True)
class ChoiceLetter(GoldMetric):
    """1 where the chosen letter is the gold letter, else 0; `answered`, whether a letter was chosen, among the details.

    Source: letter accuracy, as lawqa_jp (Digital Agency of Japan) and JCommonsenseQA score multiple choice.

    Attributes:
        letters: the letters that can be chosen.
    """

    name: str = "choice_letter"
    prediction_field: str = "answer"
    gold_fields: tuple[str, ...] = ("answer", "label", "output")
    letters: str = "abcd"

    def score(self, example: Fields, prediction: Fields) -> Score:
        """Return whether the letter is right.

        Raises:
            DataError: the gold is missing or is none of the letters.
        """
        field = first_field(example, self.gold_fields, self.name)
        gold = chosen_letter(text_of(example.get(field)), self.letters)
        if gold is None:
            raise DataError(
                f"The metric {self.name!r}: field {field!r} is none of the letters {self.letters!r}: "
                f"{text_of(example.get(field))!r}"
            )
        text = text_of(prediction.get(self.prediction_field))
        letter = chosen_letter(text, self.letters)
        return Score(float(letter == gold), feedback([gold], letter or text), {"answered": float(letter is not None)})


def option_texts(options: str) -> dict[str, str]:
    """Return letter -> text of options that stand one after the other, each begun by its letter on a new line."""
    parts = re.split(r"(?m)^\s*([A-Za-z])[\s.:)、．]+", unicodedata.normalize("NFKC", options))
    return {letter.lower(): " ".join(text.split()) for letter, text in zip(parts[1::2], parts[2::2], strict=True)}


@dataclass(frozen=True)
class OrderAgreement:
    """How far choices survive another order of the options, in [0, 1].

    Attributes:
        questions: those asked in at least two orders.
        all_same: share of them on which every order led to the same option.
        pairwise: mean share of pairs of orders that led to the same option.
    """

    questions: int
    all_same: float
    pairwise: float


def order_agreement(choices: Iterable[tuple[str, str, str]]) -> OrderAgreement:
    """Return the agreement of answers to the same questions with their options in different orders.

    Options are told apart by their text, not by their letter. An answer without a letter agrees with none.

    Args:
        choices: (what identifies the question, its options in this order, the answer).

    Raises:
        DataError: no question was asked in two orders.
    """
    chosen: dict[str, list[str | None]] = defaultdict(list)
    for question, options, answer in choices:
        texts = option_texts(options)
        letter = chosen_letter(answer, "".join(texts)) if texts else None
        chosen[question].append(texts[letter] if letter else None)
    shares = []
    for texts_chosen in chosen.values():
        pairs = list(combinations(texts_chosen, 2))
        if pairs:
            shares.append(sum(a is not None and a == b for a, b in pairs) / len(pairs))
    if not shares:
        raise DataError("Agreement needs a question that was asked with its options in two orders; there is none.")
    return OrderAgreement(len(shares), sum(share == 1.0 for share in shares) / len(shares), sum(shares) / len(shares))
