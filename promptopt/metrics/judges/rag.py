"""The judge of answers that stand on documents: three questions, three ratings."""

from typing import Literal

import dspy

from promptopt.errors import ConfigError
from promptopt.metrics.base import Fields, Score
from promptopt.metrics.grounding import Groundedness
from promptopt.metrics.judges.asking import JudgeLM
from promptopt.metrics.judges.prompts import FAITHFULNESS, REFERENCE, RELEVANCE
from promptopt.metrics.judges.rating import (
    QUESTION_FIELDS,
    REFERENCE_FIELDS,
    Rating,
    RatingJudge,
    empty_answer,
    reference_text,
)
from promptopt.metrics.judges.verdict import HIGHEST, unit
from promptopt.metrics.values import first_field, gold_texts, text_of

Aspect = Literal["accuracy", "relevance", "faithfulness"]
ASPECTS: tuple[Aspect, ...] = ("accuracy", "relevance", "faithfulness")
CONTEXT_FIELDS = tuple(name for name in Groundedness().input_fields if name != "question")


class RagJudge(RatingJudge):
    """Rates accuracy against the reference, relevance to the question and faithfulness to the context, 1 to 10 each.

    The aspects are asked for one by one, so that none colours another. The score is their mean, UNSCORED where one is
    undecided; details: each aspect that is decided, as (n - 1) / 9.

    Args:
        aspects: those to ask for.

    Raises:
        ConfigError: an aspect is unknown, named twice, or there is none.
    """

    task = "\n\n".join((REFERENCE, RELEVANCE, FAITHFULNESS))

    def __init__(
        self,
        lm: dspy.BaseLM | JudgeLM,
        *,
        name: str = "rag_judge",
        explain: bool = False,
        temperature: float | None = None,
        aspects: tuple[Aspect, ...] = ASPECTS,
        prediction_field: str = "answer",
        question_fields: tuple[str, ...] = QUESTION_FIELDS,
        reference_fields: tuple[str, ...] = REFERENCE_FIELDS,
        context_fields: tuple[str, ...] = CONTEXT_FIELDS,
    ) -> None:
        super().__init__(lm, name=name, explain=explain, temperature=temperature)
        if not aspects or len(set(aspects)) < len(aspects) or not set(aspects) <= set(ASPECTS):
            raise ConfigError(f"aspects is {list(aspects)}; allowed are one or more of {list(ASPECTS)}, each once.")
        self.aspects = aspects
        self.prediction_field = prediction_field
        self.question_fields = question_fields
        self.reference_fields = reference_fields
        self.context_fields = context_fields

    def asks(self) -> str:
        """Return the digest of what decides a verdict, with the aspects."""
        return f"{super().asks()} {'+'.join(self.aspects)}"

    def _fields(self) -> tuple[object, ...]:
        return self.prediction_field, self.question_fields, self.reference_fields, self.context_fields

    def requires_any(self) -> tuple[tuple[str, ...], ...]:
        """Return the fields that the aspects need."""
        needed = {
            "accuracy": (self.question_fields, self.reference_fields),
            "relevance": (self.question_fields,),
            "faithfulness": (self.context_fields,),
        }
        return tuple(dict.fromkeys(group for aspect in self.aspects for group in needed[aspect]))

    def rate(self, example: Fields, prediction: Fields) -> Rating:
        """Return the rounded mean of the aspects (half to even)."""
        ratings = self.ratings(example, prediction)
        values = [rating.value for rating in ratings.values() if rating.value is not None]
        if len(values) < len(ratings):
            return Rating(None, _reasons(ratings))
        return Rating(round(sum(values) / len(values)), asked=any(rating.asked for rating in ratings.values()))

    def score(self, example: Fields, prediction: Fields) -> Score:
        """Return the mean of the aspects.

        Raises:
            DataError: the example lacks what an aspect needs.
            LMError: the LM broke.
        """
        ratings = self.ratings(example, prediction)
        details: dict[str, float] = {
            aspect: unit(rating.value) for aspect, rating in ratings.items() if rating.value is not None
        }
        if len(details) < len(ratings):
            return Score(None, f"undecided: {_reasons(ratings)}", details)
        said = ", ".join(f"{aspect} {rating.value} of {HIGHEST}" for aspect, rating in ratings.items())
        return Score(sum(details.values()) / len(details), said, details)

    def ratings(self, example: Fields, prediction: Fields) -> dict[Aspect, Rating]:
        """Return the rating of each aspect."""
        answer = text_of(prediction.get(self.prediction_field))
        return {aspect: self._rate(aspect, example, answer) for aspect in self.aspects}

    def _rate(self, aspect: Aspect, example: Fields, answer: str) -> Rating:
        if aspect == "faithfulness":
            context = text_of(example.get(first_field(example, self.context_fields, self.name)))
            return self._ask(FAITHFULNESS, context=context, response=answer) if answer.strip() else empty_answer()
        question = text_of(example.get(first_field(example, self.question_fields, self.name)))
        if aspect == "relevance":
            return self._ask(RELEVANCE, question=question, answer=answer) if answer.strip() else empty_answer()
        references = gold_texts(example, self.reference_fields, self.name)
        if not answer.strip():
            return empty_answer(unanswerable=not any(text.strip() for text in references))
        return self._ask(REFERENCE, question=question, reference=reference_text(references), answer=answer)


def _reasons(ratings: dict[Aspect, Rating]) -> str:
    return "; ".join(f"{aspect}: {rating.reason}" for aspect, rating in ratings.items() if rating.value is None)
