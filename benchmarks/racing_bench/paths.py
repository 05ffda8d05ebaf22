"""Test statistics of paired differences after every look, vectorised over looks; the same decisions as scipy's."""

from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import special

from promptopt.study.pruning import LEAST_DIFFERENCE

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_MOST_EXACT = 50  # scipy.stats.wilcoxon, method "auto": exact up to here where nothing ties ...
_MOST_PERMUTED = 13  # ... and all signs enumerated up to here where something does


def wilcoxon_path(differences: Floats, looks: Ints, pratt: bool = False) -> Floats:
    """Return the p value (one-sided: less) of Wilcoxon's test on the first k differences, for every k of `looks`.

    What `scipy.stats.wilcoxon(..., zero_method="zsplit")` gives, small samples included, whose enumeration is done here
    by counting sums of ranks, in microseconds. With `pratt`, zeros add no variance.
    """
    values, column = np.unique(np.abs(differences), return_inverse=True)
    one_hot = np.zeros((len(differences), len(values)))
    one_hot[np.arange(len(differences)), column] = 1
    at = looks - 1
    counts = np.cumsum(one_hot, axis=0)[at]
    above = np.cumsum(one_hot * (differences > 0)[:, None], axis=0)[at]
    ranks = np.cumsum(counts, axis=1) - (counts - 1) / 2
    zeros = counts[:, 0] if values[0] == 0 else np.zeros(len(looks))
    n = looks.astype(float)
    # Half of the zeros' ranks falls to either side.
    plus = (above * ranks).sum(axis=1) + zeros * (zeros + 1) / 4
    variance = n * (n + 1) * (2 * n + 1) / 24 - (counts**3 - counts).sum(axis=1) / 48
    if pratt:
        variance = variance - zeros * (zeros + 1) ** 2 / 16
    with np.errstate(divide="ignore", invalid="ignore"):
        z = (plus - n * (n + 1) / 4) / np.sqrt(variance)
        p = special.ndtr(z)
    p[zeros == n] = 1.0
    tied = (counts > 1).any(axis=1) | (zeros > 0)
    for look in np.flatnonzero(np.where(tied, n <= _MOST_PERMUTED, n <= _MOST_EXACT)):
        if tied[look]:
            signed = np.repeat(ranks[look], counts[look].astype(int))[int(zeros[look]) :]
            p[look] = _permuted(signed, plus[look] - zeros[look] * (zeros[look] + 1) / 4)
        else:
            p[look] = _exact(int(n[look]))[int(np.ceil(plus[look]))]
    return p


def _permuted(ranks: Floats, plus: float) -> float:
    """Return the share of sign patterns whose sum of positive ranks is at most `plus`."""
    doubled = np.rint(ranks * 2).astype(int)
    ways = np.zeros(doubled.sum() + 1)
    ways[0] = 1
    for rank in doubled:
        ways[rank:] = ways[rank:] + ways[: len(ways) - rank]
    return float(ways[: round(plus * 2) + 1].sum() / 2 ** len(doubled))


@cache
def _exact(n: int) -> Floats:
    """Return the distribution function of the signed-rank statistic of `n` untied differences."""
    ways = np.zeros(n * (n + 1) // 2 + 1)
    ways[0] = 1
    for rank in range(1, n + 1):
        ways[rank:] = ways[rank:] + ways[: len(ways) - rank]
    cumulated: Floats = np.cumsum(ways) / 2.0**n
    return cumulated


def t_path(differences: Floats, looks: Ints, finite: int | None = None) -> Floats:
    """Return the one-sided p value of the paired t test on the first k differences, for every k of `looks`.

    With `finite`, the number of all examples: the chance that the candidate would be ahead after all of them, given the
    first k (flat prior, normal differences). What is still unknown shrinks to nothing as the examples run out.
    """
    n = looks.astype(float)
    mean = np.cumsum(differences)[looks - 1] / n
    variance = np.maximum(np.cumsum(differences**2)[looks - 1] / n - mean**2, 0) * n / (n - 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = mean / np.sqrt(variance / n)
        if finite is not None:
            t = t * np.sqrt(finite / np.maximum(finite - n, 1e-9))
    return np.where(np.isnan(t), 1.0, special.stdtr(n - 1, np.nan_to_num(t)))


def ahead_path(differences: Floats, looks: Ints, finite: int | None = None) -> Floats:
    """Return promptopt's own rule, `study.pruning.chance_to_end_ahead`, of the first k differences, for every k.

    Without `finite`, the number of all examples, as if they never ran out: the sign-flip test of the mean.
    """
    sizes = np.where(np.abs(differences) > LEAST_DIFFERENCE, np.abs(differences), 0.0)
    total, squares = np.cumsum(differences)[looks - 1], np.cumsum(sizes**2)[looks - 1]
    moved = np.cumsum(sizes > 0)[looks - 1]
    granted = np.divide(np.cumsum(sizes)[looks - 1], moved, out=np.zeros(len(looks)), where=moved > 0)
    z = np.divide(total + granted, np.sqrt(squares), out=np.zeros(len(looks)), where=moved > 0)
    if finite is not None:
        z = z * np.sqrt(finite / np.maximum(finite - looks, 1e-9))
    p: Floats = np.where(moved > 0, special.ndtr(z), 1.0)
    return p


def bernstein_path(differences: Floats, looks: Ints, delta: float) -> Floats:
    """Return the upper end of the empirical Bernstein bound of the mean (Audibert et al. 2009); below 0: lost."""
    n = looks.astype(float)
    mean = np.cumsum(differences)[looks - 1] / n
    variance = np.maximum(np.cumsum(differences**2)[looks - 1] / n - mean**2, 0)
    log = np.log(3 / delta)
    upper: Floats = mean + np.sqrt(2 * variance * log / n) + 3 * 2 * log / n
    return upper


def betting_path(differences: Floats, looks: Ints) -> Floats:
    """Return 1 / wealth of a gambler who bets that the mean is below 0 (Waudby-Smith and Ramdas 2024): an anytime p.

    The stake is the growth-optimal one for the mean and variance seen so far, at most half of what can be lost.
    """
    n = np.arange(1, len(differences) + 1)
    mean = np.cumsum(differences) / (n + 1)
    spread = (0.25 + np.cumsum(differences**2)) / (n + 1)
    stake = np.concatenate([[0.0], np.clip(-mean / spread, 0, 0.5)[:-1]])
    wealth = np.cumsum(np.log1p(-stake * differences))
    p: Floats = np.exp(-np.maximum.accumulate(wealth))[looks - 1]
    return p
