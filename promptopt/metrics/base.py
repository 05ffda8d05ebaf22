"""The Metric contract and Score. Knows no concrete metric and no LM."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
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
