"""The judge of two answers: which is better, asked in both orders."""

from dataclasses import dataclass
from typing import Literal

import dspy

from promptopt.errors import ParseError
from promptopt.metrics.base import Fields
from promptopt.metrics.judges.asking import JudgeLM, Question, ask
from promptopt.metrics.judges.prompts import PAIR, PAIR_END, question_text
from promptopt.metrics.judges.rating import QUESTION_FIELDS, REFERENCE_FIELDS, reference_text
from promptopt.metrics.judges.verdict import PREFERENCES, read_verdict, reply_tokens, verdict_grammar
from promptopt.metrics.values import first_field, gold_texts, text_of

Side = Literal["first", "second", "tie"]


@dataclass(frozen=True)
class Preference:
    """Which of two answers is better.

    Attributes:
        side: None = undecided.
        reason: why it is undecided.
        swayed: the two orders gave different verdicts: the place of an answer counted, which makes it a tie.
    """

    side: Side | None
    reason: str = ""
    swayed: bool = False


class PairwiseJudge:
    """Says which of two answers is better.

    Both orders are asked, and an answer is better only where both say so; else it is a tie (MT-Bench's conservative
    rule, Zheng et al. 2023, arXiv 2306.05685). Equal answers are a tie and an empty one loses, without a question.

    Args:
        reference_fields: shown to the judge where the example has one of them; () = never.
    """

    def __init__(
        self,
        lm: dspy.BaseLM | JudgeLM,
        *,
        explain: bool = False,
        temperature: float = 0.0,
        prediction_field: str = "answer",
        question_fields: tuple[str, ...] = QUESTION_FIELDS,
        reference_fields: tuple[str, ...] = REFERENCE_FIELDS,
    ) -> None:
        self.lm = lm if isinstance(lm, JudgeLM) else JudgeLM(lm)
        self.explain = explain
        self.temperature = temperature
        self.prediction_field = prediction_field
        self.question_fields = question_fields
        self.reference_fields = reference_fields

    def compare(self, example: Fields, first: Fields, second: Fields) -> Preference:
        """Return which prediction is better.

        Raises:
            DataError: the example has no question.
            LMError: the LM broke.
        """
        question = text_of(example.get(first_field(example, self.question_fields, "pairwise_judge")))
        one, other = (text_of(prediction.get(self.prediction_field)).strip() for prediction in (first, second))
        if one == other:
            return Preference("tie")
        if not one or not other:
            return Preference("first" if one else "second")
        parts = {"request": question}
        if any(example.get(name) is not None for name in self.reference_fields):
            parts["reference"] = reference_text(gold_texts(example, self.reference_fields, "pairwise_judge"))
        try:
            forwards = self._verdict({**parts, "answer_a": one, "answer_b": other})
            backwards = self._verdict({**parts, "answer_a": other, "answer_b": one})
        except ParseError as error:
            return Preference(None, str(error))
        sides: dict[str, Side] = {"A": "first", "B": "second", "C": "tie"}
        mirrored: dict[str, Side] = {"A": "second", "B": "first", "C": "tie"}
        if sides[forwards] == mirrored[backwards]:
            return Preference(sides[forwards])
        return Preference("tie", swayed=True)

    def _verdict(self, parts: dict[str, str]) -> str:
        text = question_text(PAIR, PAIR_END[self.explain], **parts)
        grammar = verdict_grammar(PREFERENCES, self.explain)
        question = Question(text, grammar, self.temperature, reply_tokens(self.explain))
        return read_verdict(ask(self.lm, question), PREFERENCES)
