"""Intervals and paired tests on per-example scores. Knows numbers only: no examples, models or metrics.

All resampling is seeded and done by numpy; equal arguments give equal results on every machine with the same numpy.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Alternative = Literal["two-sided", "greater", "less"]

_MOST_ENUMERATED = 9
_CELLS_AT_ONCE = 2_000_000  # resampled values held in memory: about 16 MB


@dataclass(frozen=True)
class Interval:
    """A confidence interval, in the unit of the values."""

    low: float
    high: float


@dataclass(frozen=True)
class PairedDifference:
    """How b differs from a on the same examples.

    Attributes:
        mean: of b - a; positive where b is better.
        low, high: 95 % interval of that mean.
        p_value: two-sided, of the hypothesis that a and b are interchangeable on each example.
        n: examples that both have.
    """

    mean: float
    low: float
    high: float
    p_value: float
    n: int


def bootstrap_interval(values: Sequence[float], seed: int, n_resamples: int = 2000, level: float = 0.95) -> Interval:
    """Return the percentile bootstrap interval of the mean (Efron 1979).

    Percentile and not BCa: BCa's acceleration is undefined for equal values and erratic for the few distinct values
    that task scores have, and its gain for means of bounded scores is small. Where all values are equal (one value
    included) the interval is that value: it then says nothing about other examples.

    Args:
        values: at least one, finite.
        seed: of the resampling.
        n_resamples: how many resampled means the quantiles are taken of.
        level: share of resampled means inside the interval, in (0, 1).

    Raises:
        ValueError: there are no values, one is not finite, or `level` is out of range.
    """
    array = _checked(values)
    if not 0 < level < 1:
        raise ValueError(f"level must lie in (0, 1); got {level!r}")
    if np.all(array == array[0]):
        return Interval(float(array[0]), float(array[0]))
    rng = np.random.default_rng(seed)
    means = np.concatenate(
        [
            array[rng.integers(0, len(array), size=(rows, len(array)))].mean(axis=1)
            for rows in _chunks(n_resamples, len(array))
        ]
    )
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))


def paired_bootstrap(
    values_a: Sequence[float], values_b: Sequence[float], seed: int, n_resamples: int = 2000
) -> PairedDifference:
    """Return how b differs from a, where values_a[i] and values_b[i] belong to the same example.

    The interval is the percentile bootstrap of the differences' mean. The p value is that of the paired randomisation
    test, which flips the signs of differences at random (Fisher 1935; recommended for system comparison by Smucker et
    al. 2007): unlike a bootstrap p value it stays valid for few examples, e.g. one example can never give less than 1.

    Raises:
        ValueError: lengths differ, there are no values, or one is not finite.
    """
    differences = _differences(values_b, values_a)
    interval = bootstrap_interval(differences.tolist(), seed, n_resamples)
    mean = float(differences.mean())
    rng = np.random.default_rng([seed, 1])
    as_far = 0
    for rows in _chunks(n_resamples, len(differences)):
        signs = rng.integers(0, 2, size=(rows, len(differences))) * 2 - 1
        # The tolerance counts ties that differ by rounding only; leaving them out would shrink p.
        as_far += int(np.count_nonzero(np.abs((signs * differences).mean(axis=1)) >= abs(mean) - 1e-12))
    p_value = (as_far + 1) / (n_resamples + 1)
    return PairedDifference(mean, interval.low, interval.high, p_value, len(differences))


def wilcoxon(values_a: Sequence[float], values_b: Sequence[float], alternative: Alternative = "two-sided") -> float:
    """Return the p value of the paired Wilcoxon signed-rank test.

    Zero differences are split between both signs, as Optuna's WilcoxonPruner does it; all differences zero: p is 1. The
    distribution is exact without ties (up to 50 examples) and for up to 9 examples with ties, else the normal one.

    Args:
        values_a: scores of one system.
        values_b: scores of the other on the same examples.
        alternative: "greater" asks whether a is better than b, "less" whether it is worse.

    Raises:
        ValueError: lengths differ, there are no values, or one is not finite.
    """
    differences = _differences(values_a, values_b)
    if not np.any(differences):
        return 1.0
    # Imported here: scipy.stats costs half a second, and only racing and comparison need it.
    from scipy import stats

    # With ties, scipy enumerates all 2^n signs up to n = 13, which takes over a second: too long for a race.
    tied = len(np.unique(np.abs(differences))) < len(differences) or not np.all(differences)
    method = "asymptotic" if tied and len(differences) > _MOST_ENUMERATED else "auto"
    result = stats.wilcoxon(differences, zero_method="zsplit", alternative=alternative, method=method)
    return float(result.pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p values corrected for being looked at together, in the order given (Holm 1979).

    The chance of any false finding among them stays below the level that the corrected values are compared with,
    however the tests depend on each other.
    """
    ranked = sorted(range(len(p_values)), key=lambda index: p_values[index])
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(ranked):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = largest
    return corrected


def examples_needed(difference: float, deviation: float, power: float = 0.8, level: float = 0.05) -> int:
    """Return how many paired examples show a mean difference of this size with probability `power`.

    Two-sided paired test, normal approximation with Guenther's (1981) correction for the t distribution.

    Args:
        difference: of two mean scores, e.g. 0.05 for five points.
        deviation: standard deviation of the difference per example. Where each example is right or wrong and a share q
            of them changes, it is the root of q - difference^2.
        power: chance to find a difference that is there; level: chance to find one that is not.

    Raises:
        ValueError: `difference` or `deviation` is not positive, or `power` or `level` is not between 0 and 1.
    """
    if difference <= 0 or deviation <= 0:
        raise ValueError(f"difference and deviation must be positive; got {difference!r} and {deviation!r}")
    if not 0 < level < 1 or not 0 < power < 1:
        raise ValueError(f"power and level lie between 0 and 1; got {power!r} and {level!r}")
    sided = NormalDist().inv_cdf(1 - level / 2)
    wanted = (sided + NormalDist().inv_cdf(power)) * deviation / difference
    return math.ceil(wanted**2 + sided**2 / 2)


def detectable_difference(found: PairedDifference, power: float = 0.8) -> float:
    """Return the smallest true difference that examples like those of `found` show with probability `power`."""
    standard_error = (found.high - found.low) / (2 * NormalDist().inv_cdf(0.975))
    return (NormalDist().inv_cdf(0.975) + NormalDist().inv_cdf(power)) * standard_error


def _checked(values: Sequence[float]) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"a statistic needs a flat sequence of at least one value; got shape {array.shape}")
    if not np.all(np.isfinite(array)):
        raise ValueError("a statistic needs finite values; leave undecided examples out first")
    return array


def _differences(first: Sequence[float], second: Sequence[float]) -> NDArray[np.float64]:
    if len(first) != len(second):
        raise ValueError(f"paired values must be equally many; got {len(first)} and {len(second)}")
    return _checked(first) - _checked(second)


def _chunks(n_resamples: int, width: int) -> Iterator[int]:
    rows = max(1, _CELLS_AT_ONCE // width)
    for start in range(0, n_resamples, rows):
        yield min(rows, n_resamples - start)
