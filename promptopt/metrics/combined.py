"""Metrics made of metrics: weighted sums and products. Scores nothing itself."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from promptopt.errors import ConfigError
from promptopt.metrics.base import Fields, Metric, Score


@dataclass(frozen=True)
class _Combined(Metric):
    """What sums and products share. The value is undecided where a part is.

    Details: each part's value under its name (so that the report shows each part's mean), and each of its details under
    `name.detail`.
    """

    parts: tuple[Metric, ...]

    def __post_init__(self) -> None:
        names = [part.name for part in self.parts]
        if not names or len(set(names)) < len(names):
            raise ConfigError(
                f"A combined metric needs parts of different names, and got {names}. "
                "Name the instances: TokenF1(name=...)."
            )

    def score(self, example: Fields, prediction: Fields) -> Score:
        """Return the combined score; its feedback is that of every part that is not perfect.

        Raises:
            DataError: a part cannot use the example.
        """
        scores = [part.score(example, prediction) for part in self.parts]
        details: dict[str, float] = {}
        for part, score in zip(self.parts, scores, strict=True):
            if score.value is not None:
                details[part.name] = score.value
            details |= {f"{part.name}.{name}": value for name, value in score.details.items()}
        values = [score.value for score in scores if score.value is not None]
        pairs = zip(self.parts, scores, strict=True)
        said = [f"{part.name}: {score.feedback}" for part, score in pairs if score.value != 1.0 and score.feedback]
        decided = len(values) == len(scores)
        return Score(self._combine(values) if decided else None, " | ".join(said), details)

    def _combine(self, values: Sequence[float]) -> float:
        raise NotImplementedError

    def requires(self) -> tuple[str, ...]:
        """Return what the parts require."""
        return tuple(dict.fromkeys(name for part in self.parts for name in part.requires()))

    def requires_any(self) -> tuple[tuple[str, ...], ...]:
        """Return the groups of the parts."""
        return tuple(dict.fromkeys(group for part in self.parts for group in part.requires_any()))

    def identity(self) -> str:
        """Return the identities of the parts that have one."""
        return " ".join(identity for part in self.parts if (identity := part.identity()))

    def corpus(self, pairs: Iterable[tuple[Fields, Fields]]) -> Mapping[str, float]:
        """Return the corpus figures of the parts, as `name.figure`."""
        pairs = list(pairs)
        return {f"{part.name}.{name}": value for part in self.parts for name, value in part.corpus(pairs).items()}


@dataclass(frozen=True)
class WeightedSum(_Combined):
    """The sum of weight times value; `0.7 * answer_f1 + 0.3 * groundedness` makes one.

    Attributes:
        weights: one per part, above 0, at most 1 together.

    Raises:
        ConfigError: the weights do not fit.
    """

    weights: tuple[float, ...]
    name: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        fit = len(self.weights) == len(self.parts) and all(0 < weight < math.inf for weight in self.weights)
        if not fit or math.fsum(self.weights) > 1 + 1e-9:
            raise ConfigError(
                f"The weights of a sum of {len(self.parts)} metric(s) must be that many numbers above 0 and at most 1 "
                f"together, for a score in [0, 1]; got {list(self.weights)}. Write 0.7 * a + 0.3 * b."
            )
        if not self.name:
            terms = zip(self.weights, self.parts, strict=True)
            object.__setattr__(self, "name", " + ".join(f"{weight:g} {part.name}" for weight, part in terms))

    def _combine(self, values: Sequence[float]) -> float:
        terms = zip(self.weights, values, strict=True)
        return min(1.0, math.fsum(weight * value for weight, value in terms))


@dataclass(frozen=True)
class Product(_Combined):
    """The product of the values; `answer_f1 * json_valid` makes one. A part that is 0 decides."""

    name: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.name:
            object.__setattr__(self, "name", " * ".join(_bracketed(part) for part in self.parts))

    def _combine(self, values: Sequence[float]) -> float:
        return math.prod(values)


def _bracketed(part: Metric) -> str:
    return f"({part.name})" if isinstance(part, WeightedSum) else part.name


def weighted(metric: Metric, weight: float) -> WeightedSum:
    """Return `weight` times `metric`; a sum that has no name of its own is scaled term by term."""
    if isinstance(metric, WeightedSum):
        return WeightedSum(metric.parts, tuple(weight * own for own in metric.weights))
    return WeightedSum((metric,), (weight,))


def added(first: Metric, second: Metric) -> WeightedSum:
    """Return the sum of two metrics, where a bare metric has weight 1; sums in it are merged."""
    parts: list[Metric] = []
    weights: list[float] = []
    for metric in (first, second):
        parts += metric.parts if isinstance(metric, WeightedSum) else [metric]
        weights += metric.weights if isinstance(metric, WeightedSum) else [1.0]
    return WeightedSum(tuple(parts), tuple(weights))


def multiplied(first: Metric, second: Metric) -> Product:
    """Return the product of two metrics; products in it are merged."""
    parts: list[Metric] = []
    for metric in (first, second):
        parts += metric.parts if isinstance(metric, Product) else [metric]
    return Product(tuple(parts))
