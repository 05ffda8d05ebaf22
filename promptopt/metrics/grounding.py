"""Hallucination without an LM: what an answer states that its inputs do not hold. Judges no meaning."""

import re
from dataclasses import dataclass

from promptopt.metrics.answers import Language
from promptopt.metrics.base import Fields, Metric, Score
from promptopt.metrics.claims import KINDS, Source, claims_in
from promptopt.metrics.tokens import words
from promptopt.metrics.values import first_field, text_of

_ABSTAINS = re.compile(
    r"\b(?:no answer|not? (?:be )?answer(?:ed|able)?\b|unanswerable|unknown|n/a|i (?:do not|don't) know"
    r"|cannot be (?:determined|found)|can(?: ?not|'t) (?:find|tell|determine)"
    r"|not (?:mentioned|stated|specified|given|provided|found)"
    r"|no information|does(?: not|n't) (?:say|mention|state|contain|provide))"
    r"|不明|分かりません|わかりません|記載(?:は|が)?(?:ありません|されていません|ない)|書かれていません|情報(?:は|が)?(?:ありません|ない)"
    r"|回答(?:でき|不能|不可)|答えられません|該当(?:する情報)?なし",
    re.IGNORECASE,
)


def abstains(text: str) -> bool:
    """Return whether an answer is empty or says that there is none (English and Japanese phrases)."""
    return not text.strip() or _ABSTAINS.search(text) is not None


@dataclass(frozen=True)
class Groundedness(Metric):
    """Share of what an answer states that stands in its inputs: URLs, dates, numbers, quotes, names; 1 without any.

    An answer to a question that has none is 0, and declining it is 1; an empty answer to any other question is 0, which
    is no verdict on its truth. It finds made-up facts, not wrong ones: a number that stands in the inputs for something
    else counts as grounded, a right sum that does not stand there as not. So it belongs beside a metric of the task, as
    in `0.7 * answer_f1 + 0.3 * groundedness`.

    Details: one share per kind that occurs (`urls`, `dates`, `numbers`, `quotes`, `names`); `hallucinated`, 1 where
    anything is not grounded or an unanswerable question was answered; `answered_unanswerable`, where the example says
    that there is no answer; `overlap`, the share of the answer's words that stand in the inputs (Japanese needs the
    extra `metrics`), which is no part of the value.

    Attributes:
        input_fields: the inputs are all of these that the example has.
        gold_fields: where one of these is there and holds no answer, the question is unanswerable (SQuAD 2.0).
        language: whose rules for names and numbers hold; dates and URLs are found in both.
        overlap: whether to compute that detail.
    """

    name: str = "groundedness"
    prediction_field: str = "answer"
    input_fields: tuple[str, ...] = (
        "context",
        "contexts",
        "document",
        "documents",
        "passage",
        "passages",
        "knowledge",
        "question",
    )
    gold_fields: tuple[str, ...] = ("answers", "answer")
    language: Language = "en"
    overlap: bool = True

    def score(self, example: Fields, prediction: Fields) -> Score:
        """Return how far the answer stands on its inputs.

        Raises:
            DataError: the example has none of the inputs.
        """
        first_field(example, self.input_fields, self.name)
        inputs = "\n".join(text_of(example.get(name)) for name in self.input_fields if example.get(name) is not None)
        text = text_of(prediction.get(self.prediction_field))
        unanswerable = self._unanswerable(example)
        source = Source(inputs, self.language)
        checked = [(kind, said, source.holds(kind, said)) for kind, said in claims_in(text, self.language)]
        wrong = [f"{kind[:-1]} {said!r}" for kind, said, held in checked if not held]
        details = {}
        for kind in KINDS:
            verdicts = [held for found, _, held in checked if found == kind]
            if verdicts:
                details[kind] = sum(verdicts) / len(verdicts)
        value = sum(held for _, _, held in checked) / len(checked) if checked else 1.0
        answered = unanswerable and not abstains(text)
        if unanswerable:
            details["answered_unanswerable"] = float(answered)
            value = 0.0 if answered else 1.0
        elif not text.strip():
            value = 0.0
        details["hallucinated"] = float(answered or (bool(wrong) and not unanswerable))
        if self.overlap and text.strip():
            details["overlap"] = _overlap(text, inputs, self.language)
        return Score(value, _said(wrong, answered, text), details)

    def requires(self) -> tuple[str, ...]:
        """Return the input field if there is only one."""
        return self.input_fields if len(self.input_fields) == 1 else ()

    def requires_any(self) -> tuple[tuple[str, ...], ...]:
        """Return the input fields if there are several."""
        return (self.input_fields,) if len(self.input_fields) > 1 else ()

    def _unanswerable(self, example: Fields) -> bool:
        golds = [example.get(name) for name in self.gold_fields]
        there = [gold for gold in golds if gold is not None]
        return bool(there) and not any(text_of(gold).strip() for gold in there)


def _overlap(text: str, inputs: str, language: Language) -> float:
    said, there = words(text, language), set(words(inputs, language))
    return sum(word in there for word in said) / len(said) if said else 0.0


def _said(wrong: list[str], answered: bool, text: str) -> str:
    if answered:
        return f"the inputs hold no answer; got {' '.join(text.split())[:160]!r}"
    if not text.strip():
        return "the answer is empty"
    return (
        " ".join(f"not in the inputs: {', '.join(wrong)}".split())[:400] if wrong else "all of it stands in the inputs"
    )
