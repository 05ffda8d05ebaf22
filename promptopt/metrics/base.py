"""The Metric contract and Score. Knows no concrete metric and no LM."""

from abc import ABC, abstractmethod
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol


class Fields(Protocol):
    """What a metric may ask of an example or a prediction; dspy.Example, dspy.Prediction and dict all have it."""

    def get(self, key: str, default: Any = None, /) -> Any:
        """Return the value of field `key`, or `default`."""
        ...


@dataclass(frozen=True)
class Score:
    """What a metric says of one prediction.

    Attributes:
        value: in [0, 1], higher is better; None = undecided (UNSCORED: left out of the mean and counted).
        feedback: one line for people and for reflection: what was expected, what came.
        details: named parts, each in [0, 1], averaged in the report.
    """

    value: float | None
    feedback: str = ""
    details: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.value is not None and not 0.0 <= self.value <= 1.0:
            raise ValueError(f"A score lies in [0, 1] or is None; got {self.value!r}")


class Metric(ABC):
    """Example + prediction -> Score; also usable wherever DSPy takes a metric.

    Contract: deterministic for the same arguments; higher is better; a bad prediction is a low score, never an
    exception; an example that lacks a field the metric needs raises DataError naming the field.
    """

    name: str

    @abstractmethod
    def score(self, example: Fields, prediction: Fields) -> Score:
        """Return the score of `prediction` for `example`."""

    def __call__(self, example: Fields, prediction: Fields, trace: object = None) -> float:
        """Return `score(...).value` (undecided counts 0 here: DSPy knows no undecided), as DSPy calls metrics."""
        return self.score(example, prediction).value or 0.0

    def requires(self) -> tuple[str, ...]:
        """Return the example fields without which no score is possible."""
        return ()

    def requires_any(self) -> tuple[tuple[str, ...], ...]:
        """Return groups of example fields; without at least one field of each group no score is possible."""
        return ()

    def lacking(self, fields: Container[str]) -> list[str]:
        """Return what an example that has `fields` lacks, as a message names it ("answers or answer")."""
        alone = [name for name in self.requires() if name not in fields]
        groups = [group for group in self.requires_any() if not any(name in fields for name in group)]
        return alone + [" or ".join(group) for group in groups]

    def identity(self) -> str:
        """Return what decides the scores beside the code, e.g. the LM a judge asks; "" where nothing does."""
        return ""

    def __mul__(self, other: "Metric | float") -> "Metric":
        """Return `metric * metric` (their product) or `metric * 0.7` (a term of a weighted sum)."""
        # Imported here: sums and products stand on this class.
        from promptopt.metrics.combined import multiplied, weighted

        if isinstance(other, Metric):
            return multiplied(self, other)
        return weighted(self, float(other)) if isinstance(other, int | float) else NotImplemented

    __rmul__ = __mul__

    def __add__(self, other: "Metric") -> "Metric":
        """Return the weighted sum of two terms, as in `0.7 * a + 0.3 * b`."""
        from promptopt.metrics.combined import added

        return added(self, other) if isinstance(other, Metric) else NotImplemented

    def corpus(self, pairs: Iterable[tuple[Fields, Fields]]) -> Mapping[str, float]:
        """Return figures over many examples and predictions that no mean of scores is, by name, each in [0, 1]."""
        return {}


class GoldMetric(Metric):
    """A metric that finds its gold in the first of `gold_fields` that an example has with a value."""

    gold_fields: tuple[str, ...]

    def requires(self) -> tuple[str, ...]:
        """Return the gold field if there is only one to look in."""
        return self.gold_fields if len(self.gold_fields) == 1 else ()

    def requires_any(self) -> tuple[tuple[str, ...], ...]:
        """Return the gold fields if there are several to look in: none alone is indispensable."""
        return (self.gold_fields,) if len(self.gold_fields) > 1 else ()
