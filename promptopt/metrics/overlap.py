"""How far a text overlaps with reference texts: BLEU, chrF, ROUGE, n-grams. Knows no meaning."""

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from promptopt.extras import require
from promptopt.metrics.answers import Language, unit_f1
from promptopt.metrics.base import Fields, GoldMetric, Score
from promptopt.metrics.tokens import cut_japanese, words
from promptopt.metrics.values import feedback, gold_texts, text_of


@dataclass(frozen=True)
class _OverlapMetric(GoldMetric):
    """What they share: where the texts stand. Where the only reference is empty, an empty text is right.

    Attributes:
        prediction_field: output field with the text.
        gold_fields: the first of these that the example has holds the references, a list or one text.
    """

    name: str
    prediction_field: str = "answer"
    gold_fields: tuple[str, ...] = ("references", "reference", "answers", "answer")

    def score(self, example: Fields, prediction: Fields) -> Score:
        """Return the overlap of one text with its references.

        Raises:
            DataError: the example has no reference.
            MissingExtraError: the extra `metrics` is not installed.
        """
        references, text = self._texts(example, prediction)
        if not text or not references:
            return Score(float(not text and not references), feedback(references or [""], text))
        value, details = self._overlap(text, references)
        return Score(value, feedback(references, text), details)

    @abstractmethod
    def _overlap(self, text: str, references: Sequence[str]) -> tuple[float, dict[str, float]]: ...

    def _texts(self, example: Fields, prediction: Fields) -> tuple[list[str], str]:
        references = [text.strip() for text in gold_texts(example, self.gold_fields, self.name)]
        return [text for text in references if text], text_of(prediction.get(self.prediction_field)).strip()


@dataclass(frozen=True)
class Bleu(_OverlapMetric):
    """Sentence BLEU over 100, with effective order; `corpus` gives corpus BLEU, the figure that papers report.

    Source: Papineni et al. 2002 by sacrebleu (Post 2018, arXiv 1804.08771): exponential smoothing, case counts,
    tokenizer 13a for English and ja-mecab for Japanese.
    """

    name: str = "bleu"
    language: Language = "en"

    def _overlap(self, text: str, references: Sequence[str]) -> tuple[float, dict[str, float]]:
        return _unit(_bleu(self.language, True).sentence_score(text, list(references)).score), {}

    def corpus(self, pairs: Iterable[tuple[Fields, Fields]]) -> Mapping[str, float]:
        """Return `bleu`: corpus BLEU over 100 of all examples that have a reference."""
        return _corpus(self, "bleu", _bleu(self.language, False), pairs)


@dataclass(frozen=True)
class Chrf(_OverlapMetric):
    """Sentence chrF over 100, for any language; `corpus` gives corpus chrF.

    Source: Popović 2015 by sacrebleu: character 1- to 6-grams, beta 2, white space left out.
    """

    name: str = "chrf"

    def _overlap(self, text: str, references: Sequence[str]) -> tuple[float, dict[str, float]]:
        return _unit(_chrf().sentence_score(text, list(references)).score), {}

    def corpus(self, pairs: Iterable[tuple[Fields, Fields]]) -> Mapping[str, float]:
        """Return `chrf`: corpus chrF over 100 of all examples that have a reference."""
        return _corpus(self, "chrf", _chrf(), pairs)


@dataclass(frozen=True)
class Rouge(_OverlapMetric):
    """F1 of ROUGE, the best over all references; all three variants among the details.

    Source: Lin 2004 by Google's rouge-score, without stemming. English words are its own; Japanese words are MeCab's.

    Attributes:
        variant: which one is the value: shared words, shared pairs of words, or the longest common subsequence.
    """

    name: str = "rouge_l"
    variant: Literal["rouge1", "rouge2", "rougeL"] = "rougeL"
    language: Language = "en"

    def _overlap(self, text: str, references: Sequence[str]) -> tuple[float, dict[str, float]]:
        # The dictionary's order is rouge-score's own, and score_multi takes the best reference for each variant.
        found = _rouge(self.language).score_multi(list(references), text)
        details = {name: float(score.fmeasure) for name, score in found.items()}
        return details[self.variant], details


@dataclass(frozen=True)
class NgramSimilarity(_OverlapMetric):
    """Mean of the F1 (Dice coefficient) of shared 1- to n-grams of words, the best over all references.

    Orders for which neither text is long enough are left out. Details: `1gram` to `ngram`, of the best reference.

    Attributes:
        longest: n.
    """

    name: str = "ngram_similarity"
    language: Language = "en"
    longest: int = 3

    def _overlap(self, text: str, references: Sequence[str]) -> tuple[float, dict[str, float]]:
        said = words(text, self.language)
        best: tuple[float, dict[str, float]] = (-1.0, {})
        for reference in references:
            wanted = words(reference, self.language)
            orders = range(1, min(self.longest, max(len(said), len(wanted), 1)) + 1)
            details = {f"{n}gram": unit_f1(_ngrams(said, n), _ngrams(wanted, n)) for n in orders}
            # Two texts without any word share nothing that could be counted.
            value = sum(details.values()) / len(details) if said or wanted else float(text == reference)
            best = max(best, (value, details), key=lambda pair: pair[0])
        return best


def _ngrams(units: Sequence[str], n: int) -> list[str]:
    return ["\0".join(units[start : start + n]) for start in range(len(units) - n + 1)]


def _corpus(
    metric: _OverlapMetric, name: str, scorer: Any, pairs: Iterable[tuple[Fields, Fields]]
) -> Mapping[str, float]:
    texts = [(text, references) for references, text in (metric._texts(*pair) for pair in pairs) if references]
    if not texts:
        return {}
    most = max(len(references) for _, references in texts)
    # sacrebleu wants the first reference of every text, then the second of every text, ...; None where there is none.
    columns = [[references[n] if n < len(references) else None for _, references in texts] for n in range(most)]
    return {name: _unit(scorer.corpus_score([text for text, _ in texts], columns).score)}


def _unit(score: float) -> float:
    return min(1.0, max(0.0, score / 100))


@lru_cache(maxsize=4)
def _bleu(language: Language, effective_order: bool) -> Any:
    scorer = require("sacrebleu").BLEU(tokenize="none" if language == "ja" else "13a", effective_order=effective_order)
    if language == "ja":
        scorer.tokenizer = cut_japanese
    return scorer


@lru_cache(maxsize=1)
def _chrf() -> Any:
    return require("sacrebleu").CHRF()


class _Words:
    """A tokenizer as rouge-score wants one."""

    def __init__(self, language: Language) -> None:
        self.language = language

    def tokenize(self, text: str) -> Sequence[str]:
        """Return the words of `text`."""
        return words(text, self.language)


@lru_cache(maxsize=2)
def _rouge(language: Language) -> Any:
    require("rouge_score")
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rouge1", "rouge2", "rougeL"], tokenizer=None if language == "en" else _Words(language))
