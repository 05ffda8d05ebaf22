"""Judges without an LM: what a judge with one must beat to be worth its calls."""

from dataclasses import dataclass

from promptopt.metrics.answers import normalise_answer
from promptopt.metrics.base import Fields, GoldMetric, Metric, Score
from promptopt.metrics.grounding import Groundedness
from promptopt.metrics.judges.rag import CONTEXT_FIELDS
from promptopt.metrics.judges.rating import REFERENCE_FIELDS
from promptopt.metrics.values import feedback, gold_texts, text_of


@dataclass(frozen=True)
class GoldContained(GoldMetric):
    """1 where a gold answer stands anywhere in the answer, both normalised by SQuAD's rules; else 0."""

    name: str = "gold contained in answer"
    prediction_field: str = "answer"
    gold_fields: tuple[str, ...] = REFERENCE_FIELDS

    def score(self, example: Fields, prediction: Fields) -> Score:
        """Return whether a gold answer stands in the answer."""
        golds = gold_texts(example, self.gold_fields, self.name)
        text = text_of(prediction.get(self.prediction_field))
        said = normalise_answer(text)
        normal = (normalise_answer(gold) for gold in golds)
        return Score(float(any(gold and gold in said for gold in normal)), feedback(golds, text))


@dataclass(frozen=True)
class WordOverlap(Metric):
    """Share of the answer's words that stand in the context; an empty answer is 0."""

    name: str = "word overlap with context"
    prediction_field: str = "answer"

    def requires_any(self) -> tuple[tuple[str, ...], ...]:
        """Return the fields of the context."""
        return (CONTEXT_FIELDS,)

    def score(self, example: Fields, prediction: Fields) -> Score:
        """Return the overlap.

        Raises:
            DataError: the example has no context.
        """
        found = Groundedness(prediction_field=self.prediction_field, input_fields=CONTEXT_FIELDS).score(
            example, prediction
        )
        value = found.details.get("overlap", 0.0)
        return Score(value, f"{value:.0%} of the answer's words stand in the context")
