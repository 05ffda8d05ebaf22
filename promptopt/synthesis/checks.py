"""What a written row must pass. Knows no LM (a metric that is named may ask one) and no files.

Rules in the order they are tried, cheapest first; the first that fails names the rejection. Keeping what passes checks
of what a model wrote follows Self-Instruct (Wang et al. 2022, arXiv 2212.10560); groundedness, near-duplicates and
metrics are those of `promptopt.metrics` and `promptopt.data`.
"""

import unicodedata
from dataclasses import dataclass, field
from typing import TypeAlias

from pydantic import JsonValue

from promptopt.config.synthesis import RowChecks, SynthesisTask
from promptopt.data.near_duplicates import NearDuplicates
from promptopt.errors import ConfigError, DataError, PromptoptError
from promptopt.layout.spec import Language
from promptopt.metrics.answers import answer_units, normalise_answer
from promptopt.metrics.base import Metric, Score
from promptopt.metrics.grounding import Groundedness, abstains

Fields: TypeAlias = dict[str, JsonValue]


class RejectedError(Exception):
    """A row does not pass; never leaves this package.

    Attributes:
        reason: of the few that the report counts.
        detail: what was found.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


@dataclass
class RowChecker:
    """Checks rows one after the other, and remembers those that passed, to know duplicates.

    Attributes:
        metric: the one that `rules.metric` names.
    """

    task: SynthesisTask
    rules: RowChecks
    language: Language
    metric: Metric | None = None
    _grounded: Groundedness = field(init=False)
    _alike: NearDuplicates = field(init=False)
    _known: dict[str, str] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._grounded = Groundedness(input_fields=("inputs",), gold_fields=(), language=self.language, overlap=False)
        self._alike = NearDuplicates(self.rules.near_duplicates)

    def check(self, row: Fields, name: str) -> dict[str, float]:
        """Return what the checks measured of a row, and remember it under `name`, which is new.

        Raises:
            RejectedError: it does not pass.
            ConfigError: the metric cannot be used on such rows.
            DataError: the metric failed.
        """
        for key, value in row.items():
            if key != "document" and not (value.strip() if isinstance(value, str) else value):
                raise RejectedError("empty", f"no {key}")
        found = self._question_answer(row) if self.task == "question_answer" else self._keywords_text(row)
        says = str(row["question"] if self.task == "question_answer" else row["text"])
        self._is_new(says)
        found |= self._scored(row)
        self._known[_plain(says)] = name
        self._alike.add(name, says)
        return found

    def _question_answer(self, row: Fields) -> dict[str, float]:
        question, answer, passage = str(row["question"]), str(row["answer"]), str(row["document"])
        if abstains(answer):
            raise RejectedError("declined", answer[:160])
        if _holds(question, answer, self.language):
            raise RejectedError("answer_in_question", answer[:160])
        overlap = 1.0 if _holds(passage, answer, self.language) else _overlap(answer, passage, self.language)
        if overlap < self.rules.min_overlap:
            raise RejectedError("not_answerable", f"{overlap:.2f} of the answer stands in the passage")
        return {
            "span": float(_holds(passage, answer, self.language)),
            "overlap": overlap,
            "groundedness": min(self._groundedness(passage, answer), self._groundedness(passage, question)),
        }

    def _keywords_text(self, row: Fields) -> dict[str, float]:
        text, keywords = str(row["text"]), row["keywords"]
        assert isinstance(keywords, list)
        shortest, longest = self.rules.text_characters
        if not shortest <= len(text) <= longest:
            raise RejectedError("length", f"{len(text)} characters; allowed are {shortest} to {longest}")
        missing = [str(word) for word in keywords if _plain(str(word)) not in _plain(text)]
        coverage = 1 - len(missing) / len(keywords)
        if coverage < self.rules.min_coverage:
            raise RejectedError("keyword_missing", ", ".join(missing)[:160])
        passage = str(row.get("document") or "")
        if passage and any(_plain(str(word)) not in _plain(passage) for word in keywords):
            raise RejectedError("keyword_not_in_passage", ", ".join(map(str, keywords))[:160])
        inputs = "\n".join([passage, *map(str, keywords)])
        return {"coverage": coverage, "groundedness": self._groundedness(inputs, text)}

    def _groundedness(self, inputs: str, said: str) -> float:
        score = self._grounded.score({"inputs": inputs}, {"answer": said})
        value = score.value if score.value is not None else 0.0
        if value < self.rules.min_groundedness:
            raise RejectedError("not_grounded", score.feedback)
        return value

    def _is_new(self, says: str) -> None:
        plain = _plain(says)
        if plain in self._known:
            raise RejectedError("duplicate", f"of {self._known[plain]}")
        alike = self._alike.find(says)
        if alike:
            raise RejectedError("near_duplicate", f"of {alike[0]} ({alike[1]:.2f})")

    def _scored(self, row: Fields) -> dict[str, float]:
        if self.metric is None:
            return {}
        output = "answer" if self.task == "question_answer" else "text"
        score = _score(self.metric, row, {output: row[output], "answer": row[output]})
        if score.value is None or score.value < self.rules.min_score:
            raise RejectedError("metric", f"{self.metric.name} {score.value}: {score.feedback}"[:300])
        return {self.metric.name: score.value}


def _score(metric: Metric, row: Fields, prediction: Fields) -> Score:
    lacking = metric.lacking(row)
    if lacking:
        raise ConfigError(
            f"checks.metric {metric.name!r} needs {', '.join(lacking)} of a row; a row has {sorted(row)}. Name another."
        )
    try:
        return metric.score(row, prediction)
    except PromptoptError:
        raise
    except Exception as error:
        raise DataError(
            f"The metric {metric.name!r} failed on a written row: {type(error).__name__}: {error}."
        ) from error


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _holds(text: str, said: str, language: Language) -> bool:
    """Return whether the normalised `said` stands in `text`: as whole words, or, in Japanese, as characters."""
    if language == "ja":
        return normalise_answer(said, "ja") in normalise_answer(text, "ja")
    return f" {' '.join(answer_units(said))} " in f" {' '.join(answer_units(text))} "


def _overlap(said: str, text: str, language: Language) -> float:
    units, there = answer_units(said, language), set(answer_units(text, language))
    return sum(unit in there for unit in units) / len(units) if units else 0.0
