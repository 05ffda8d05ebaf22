"""Complete score tables (candidates x examples): measured ones in benchmarks/data, drawn ones of known true means."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import special

Scores = NDArray[np.float64]
DATA = Path(__file__).resolve().parents[1] / "data"
SHARED = 0.7
"""Correlation of two candidates' luck on the same example: most examples are easy or hard for all of them."""


@dataclass(frozen=True)
class Table:
    """A source of score tables.

    Attributes:
        draw: seed -> scores, rows are candidates in the order in which the search meets them, columns examples.
        real: whether a model was measured, not a formula.
    """

    name: str
    candidates: int
    examples: int
    draw: Callable[[int], Scores]
    real: bool


def measured() -> list[Table]:
    """Return the tables in benchmarks/data: whole, and 80 examples of those that have more."""
    tables = []
    for path in sorted(DATA.glob("racing_*.json")):
        scores = np.array(list(json.loads(path.read_text(encoding="utf-8"))["scores"].values()))
        name = path.stem.removeprefix("racing_")
        tables += [_measured(name, scores, size) for size in sorted({min(80, scores.shape[1]), scores.shape[1]})]
    return tables


def _measured(name: str, scores: Scores, examples: int) -> Table:
    def draw(seed: int) -> Scores:
        # Rows come in hash order, so every order of them is as likely; another one per seed, shared by all candidates.
        rng = np.random.default_rng([seed, 7])
        shuffled: Scores = scores[rng.permutation(len(scores))][:, rng.permutation(scores.shape[1])[:examples]]
        return shuffled

    return Table(f"{name}, {examples}", len(scores), examples, draw, True)


def synthetic(graded: bool, gap: float, examples: int, candidates: int = 40, best: float = 0.6) -> Table:
    """Return tables whose best candidate has the true mean `best`, the next is `gap` below, the last 0.3 below that.

    Scores are a Gaussian copula: an example's difficulty, shared by all candidates, and luck of each candidate's own.
    """
    means = np.concatenate([[best], best - gap - np.linspace(0, 0.3, candidates - 1)])
    # E[Phi(a + X)] = Phi(a / sqrt 2) for a standard normal X, and P(a + X > 0) = Phi(a): true means are exact.
    levels = special.ndtri(means) * (np.sqrt(2) if graded else 1)

    def draw(seed: int) -> Scores:
        rng = np.random.default_rng([seed, 11])
        own = rng.standard_normal((candidates, examples)) * np.sqrt(1 - SHARED)
        latent = levels[rng.permutation(candidates), None] + own + rng.standard_normal(examples) * np.sqrt(SHARED)
        scores: Scores = special.ndtr(latent) if graded else (latent > 0).astype(float)
        return scores

    kind = "graded" if graded else "binary"
    return Table(f"{kind}, gap {gap * 100:g}, {examples}", candidates, examples, draw, False)
