"""Answers to questions on a document: exact match and F1 by the SQuAD and JSQuAD rules. Knows no data set."""

import re
import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from promptopt.metrics.base import Fields, GoldMetric, Score
from promptopt.metrics.values import feedback, gold_texts, text_of

Language = Literal["en", "ja"]

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalise_answer(text: str, language: Language = "en") -> str:
    """Return `text` as the official scripts compare it.

    English (Rajpurkar et al. 2016, SQuAD evaluate-v1.1): lower case, ASCII punctuation dropped, a/an/the dropped, white
    space collapsed. Japanese (Kurihara et al. 2022, JGLUE): lower case, white space collapsed, trailing 。 dropped,
    all other punctuation kept.
    """
    if language == "ja":
        return " ".join(text.lower().split()).rstrip("。")
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split())


def answer_units(text: str, language: Language = "en") -> Sequence[str]:
    """Return what F1 counts of the normalised `text`: words in English, characters in Japanese."""
    normal = normalise_answer(text, language)
    return list(normal) if language == "ja" else normal.split()


def unit_f1(prediction: Sequence[str], gold: Sequence[str]) -> float:
    """Return the F1 of two bags of units; where one is empty, 1 if both are, else 0 (SQuAD evaluate-v2.0)."""
    if not prediction or not gold:
        return float(len(prediction) == len(gold))
    common = sum((Counter(prediction) & Counter(gold)).values())
    if common == 0:
        return 0.0
    precision, recall = common / len(prediction), common / len(gold)
    return 2 * precision * recall / (precision + recall)


@dataclass(frozen=True)
class _AnswerMetric(GoldMetric):
    """What exact match and F1 share: where the answers stand, and the language.

    Attributes:
        prediction_field: output field with the answer.
        gold_fields: the first of these that the example has holds the gold answers, a list or one value.
        language: "en" compares words by SQuAD's rules, "ja" characters by JSQuAD's.
    """

    name: str
    prediction_field: str = "answer"
    gold_fields: tuple[str, ...] = ("answers", "answer")
    language: Language = "en"

    def _texts(self, example: Fields, prediction: Fields) -> tuple[tuple[str, ...], str]:
        golds = gold_texts(example, self.gold_fields, self.name)
        return golds, text_of(prediction.get(self.prediction_field))


@dataclass(frozen=True)
class TokenF1(_AnswerMetric):
    """F1 between predicted and gold answer, the best over all golds; `exact_match` among the details.

    Source: SQuAD (arXiv 1606.05250) by words; JSQuAD in JGLUE (LREC 2022) by characters.
    """

    name: str = "answer_f1"

    def score(self, example: Fields, prediction: Fields) -> Score:
        """Return the F1 of the answer."""
        golds, text = self._texts(example, prediction)
        units = answer_units(text, self.language)
        value = max(unit_f1(units, answer_units(gold, self.language)) for gold in golds)
        exact = _exact(text, golds, self.language)
        return Score(value, feedback(golds, text), {"exact_match": exact})


@dataclass(frozen=True)
class ExactMatch(_AnswerMetric):
    """1 where the normalised answer equals a normalised gold, else 0. Sources as in `TokenF1`."""

    name: str = "answer_exact_match"

    def score(self, example: Fields, prediction: Fields) -> Score:
        """Return whether the answer is exactly right."""
        golds, text = self._texts(example, prediction)
        return Score(_exact(text, golds, self.language), feedback(golds, text))


def _exact(text: str, golds: Sequence[str], language: Language) -> float:
    normal = normalise_answer(text, language)
    return float(any(normal == normalise_answer(gold, language) for gold in golds))
