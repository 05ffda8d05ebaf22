"""Judges that rate one answer from 1 to 10: against a reference, or by criteria. What they share stands here too."""

import hashlib
import json
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import dspy

from promptopt.errors import DataError, ParseError
from promptopt.metrics.base import Fields, Metric, Score
from promptopt.metrics.judges.asking import JudgeLM, Question, ask
from promptopt.metrics.judges.prompts import CRITERIA, RATING_END, REFERENCE, question_text
from promptopt.metrics.judges.verdict import HIGHEST, LOWEST, RATINGS, read_verdict, reply_tokens, unit, verdict_grammar
from promptopt.metrics.values import first_field, gold_texts, text_of

QUESTION_FIELDS = ("query", "question", "message")
REFERENCE_FIELDS = ("reference_answer", "reference", "answers", "answer")
MOST_REFERENCES = 10


@dataclass(frozen=True)
class Rating:
    """What a judge said of one answer.

    Attributes:
        value: from 1 to 10; None = undecided.
        reason: why it is undecided; empty where it is not.
        asked: whether an LM was asked.
    """

    value: int | None
    reason: str = ""
    asked: bool = True


class RatingJudge(Metric):
    """A metric that asks an LM for a rating of 1 to 10, written `[[n]]`; the score is (n - 1) / 9.

    A reply without a verdict, and a question that does not fit into the LM's context, leave the example UNSCORED with
    the reason; a broken LM raises. An empty answer is rated 1 and nobody is asked. The detail `rating_of_10` is n / 10:
    ten times its mean is the mean opinion score.

    Args:
        lm: any `dspy.LM`. One that obeys grammars (`LlamaCpp`) can write nothing but a verdict.
        explain: let the LM explain itself before the verdict.
        temperature: of the reply; None = that of the judge.
    """

    default_temperature: ClassVar[float] = 0.0
    task: ClassVar[str]

    def __init__(
        self, lm: dspy.BaseLM | JudgeLM, *, name: str, explain: bool = False, temperature: float | None = None
    ) -> None:
        self.lm = lm if isinstance(lm, JudgeLM) else JudgeLM(lm)
        self.name = name
        self.explain = explain
        self.temperature = self.default_temperature if temperature is None else temperature

    @property
    def lms(self) -> tuple[JudgeLM, ...]:
        """The LMs it asks."""
        return (self.lm,)

    def asks(self) -> str:
        """Return the digest of what decides a verdict, beside the example: LM, wording, temperature."""
        words = [self.task, RATING_END[self.explain], self.explain, self.temperature, self.lm.identity]
        return hashlib.sha256(json.dumps(words).encode()).hexdigest()[:16]

    def identity(self) -> str:
        """Return what `asks` returns, with the fields that are read."""
        return f"{self.asks()} {self._fields()!r}"

    @abstractmethod
    def rate(self, example: Fields, prediction: Fields) -> Rating:
        """Return the rating of `prediction`; DataError where the example lacks a field."""

    @abstractmethod
    def _fields(self) -> tuple[object, ...]: ...

    def score(self, example: Fields, prediction: Fields) -> Score:
        """Return the rating as a score.

        Raises:
            DataError: the example lacks what the question needs.
            LMError: the LM broke.
        """
        return score_of(self.rate(example, prediction))

    def _ask(self, task: str, **parts: str) -> Rating:
        question = Question(
            question_text(task, RATING_END[self.explain], **parts),
            verdict_grammar(RATINGS, self.explain),
            self.temperature,
            reply_tokens(self.explain),
        )
        try:
            return Rating(int(read_verdict(ask(self.lm, question), RATINGS)))
        except ParseError as error:
            return Rating(None, str(error))


def score_of(rating: Rating) -> Score:
    """Return a rating as a score; an undecided one has the reason as feedback."""
    if rating.value is None:
        return Score(None, f"undecided: {rating.reason}")
    said = f"rated {rating.value} of {HIGHEST}" + (f": {rating.reason}" if rating.reason else "")
    return Score(unit(rating.value), said, {"rating_of_10": rating.value / HIGHEST})


class ReferenceJudge(RatingJudge):
    """Rates an answer against a reference, as Flow Benchmark Tools' reference judge does (mean opinion score).

    Where the question has no answer (an empty reference), an empty answer is perfect, and nobody is asked.

    Args:
        question_fields, reference_fields: the first of these that the example has.
    """

    task = REFERENCE

    def __init__(
        self,
        lm: dspy.BaseLM | JudgeLM,
        *,
        name: str = "reference_judge",
        explain: bool = False,
        temperature: float | None = None,
        prediction_field: str = "answer",
        question_fields: tuple[str, ...] = QUESTION_FIELDS,
        reference_fields: tuple[str, ...] = REFERENCE_FIELDS,
    ) -> None:
        super().__init__(lm, name=name, explain=explain, temperature=temperature)
        self.prediction_field = prediction_field
        self.question_fields = question_fields
        self.reference_fields = reference_fields

    def _fields(self) -> tuple[object, ...]:
        return self.prediction_field, self.question_fields, self.reference_fields

    def requires_any(self) -> tuple[tuple[str, ...], ...]:
        """Return the fields of the question, and those of the reference."""
        return self.question_fields, self.reference_fields

    def rate(self, example: Fields, prediction: Fields) -> Rating:
        """Return how well the answer agrees with the reference."""
        question = text_of(example.get(first_field(example, self.question_fields, self.name)))
        references = gold_texts(example, self.reference_fields, self.name)
        answer = text_of(prediction.get(self.prediction_field))
        if not answer.strip():
            return empty_answer(unanswerable=not any(text.strip() for text in references))
        return self._ask(self.task, question=question, reference=reference_text(references), answer=answer)


class CriteriaJudge(RatingJudge):
    """Rates a text by criteria, as Flow Benchmark Tools' criteria judge does: `query` by `extras.criteria`.

    Args:
        prediction_field: output field to rate; None = the example's own text, as Flow Benchmark Tools do it.
        text_fields: the first of these that the example has is that text.
        criteria: for every example; None = the example's `extras.criteria`, or its field `criteria`.
    """

    task = CRITERIA
    default_temperature = 0.5

    def __init__(
        self,
        lm: dspy.BaseLM | JudgeLM,
        *,
        name: str = "criteria_judge",
        explain: bool = False,
        temperature: float | None = None,
        prediction_field: str | None = None,
        text_fields: tuple[str, ...] = ("query",),
        criteria: str | None = None,
    ) -> None:
        super().__init__(lm, name=name, explain=explain, temperature=temperature)
        self.prediction_field = prediction_field
        self.text_fields = text_fields
        self.criteria = criteria

    def _fields(self) -> tuple[object, ...]:
        return self.prediction_field, self.text_fields, self.criteria

    def requires_any(self) -> tuple[tuple[str, ...], ...]:
        """Return the fields of the text and of the criteria, where the example has to bring them."""
        text = (self.text_fields,) if self.prediction_field is None else ()
        return (*text, ("extras", "criteria")) if self.criteria is None else text

    def rate(self, example: Fields, prediction: Fields) -> Rating:
        """Return how well the text meets the criteria."""
        criteria = self.criteria or self._criteria_of(example)
        if self.prediction_field is None:
            text = text_of(example.get(first_field(example, self.text_fields, self.name)))
        else:
            text = text_of(prediction.get(self.prediction_field))
        return self._ask(self.task, criteria=criteria, text=text) if text.strip() else empty_answer()

    def _criteria_of(self, example: Fields) -> str:
        extras = example.get("extras")
        named = extras.get("criteria") if isinstance(extras, dict) else None
        found = text_of(named if named is not None else example.get("criteria"))
        if not found.strip():
            raise DataError(
                f"The metric {self.name!r} needs criteria, and this example has none in `extras.criteria` or "
                "`criteria`. Map one of them under `data.fields`, or give the judge criteria for every example."
            )
        return found


def empty_answer(*, unanswerable: bool = False) -> Rating:
    """Return the rating of an empty answer, which nobody is asked about: 1, or 10 where there is nothing to say."""
    return Rating(HIGHEST if unanswerable else LOWEST, "the answer is empty", asked=False)


def reference_text(references: Sequence[str]) -> str:
    """Return the references as a judge is shown them: one, or up to MOST_REFERENCES of which any is right."""
    there = list(dict.fromkeys(text.strip() for text in references if text.strip()))[:MOST_REFERENCES]
    if not there:
        return "(The question has no answer. A right answer says so.)"
    return there[0] if len(there) == 1 else "Any of these is right:\n" + "\n".join(f"- {text}" for text in there)
