"""Races candidates of a complete score table against the best so far, as a study does it, under any stopping rule."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache

import numpy as np
from numpy.typing import NDArray
from racing_bench.paths import ahead_path, bernstein_path, betting_path, t_path, wilcoxon_path
from racing_bench.tables import Scores, Table
from scipy import special

from promptopt.config.experiment import RacingConfig
from promptopt.study.pruning import look_points, looks

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Rule:
    """When a trial is stopped.

    Attributes:
        kind: of KINDS, or "full", "halving", "asha".
        config: thresholds and looks, as promptopt reads them.
        correction: of the threshold for the number of looks: "bonferroni" divides it, "pocock" finds the one at which
            an equal candidate is stopped as often as the threshold says, "none".
        certain: also stop a trial that would lose with full marks on everything left; asked after every example.
    """

    kind: str
    config: RacingConfig
    correction: str = "bonferroni"
    certain: bool = False

    def threshold(self, examples: int) -> float:
        """Return the p value below which a look stops a trial."""
        points = look_points(self.config, examples)
        if self.correction == "pocock" and points:
            return pocock(self.config.p_threshold, points)
        return self.config.p_threshold / (
            max(1, looks(self.config, examples)) if self.correction == "bonferroni" else 1
        )


@cache
def pocock(alpha: float, points: tuple[int, ...], paths: int = 20_000) -> float:
    """Return the p value that a walk without drift ever falls below, at any of `points`, with probability `alpha`."""
    steps = np.diff(points, prepend=0)
    lowest = np.full(paths, np.inf)
    walk, rng = np.zeros(paths), np.random.default_rng(0)
    for step, point in zip(steps, points, strict=True):
        walk += rng.standard_normal(paths) * np.sqrt(step)
        lowest = np.minimum(lowest, walk / np.sqrt(point))
    return float(special.ndtr(np.quantile(lowest, alpha)))


@dataclass
class Race:
    """One order of candidates and examples; p values are computed once for all rules.

    Attributes:
        grid: all looks of all rules; sums: scores of the first k examples, by candidate.
    """

    scores: Scores
    grid: NDArray[np.int64]
    sums: Floats = field(init=False)
    _paths: dict[tuple[str, float, int, int], Floats] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.sums = np.cumsum(self.scores, axis=1)

    def path(self, kind: str, best: int, candidate: int, delta: float = 0.0) -> Floats:
        """Return the p values (or whatever falls below the threshold) of `candidate` against `best` on the grid."""
        key = (kind, delta, best, candidate)
        if key not in self._paths:
            self._paths[key] = KINDS[kind](self.scores[candidate] - self.scores[best], self.grid, delta)
        return self._paths[key]

    def stop(self, rule: Rule, at: NDArray[np.int64], best: int, candidate: int) -> int:
        """Return after how many examples `candidate` is stopped; all of them = never."""
        examples = self.scores.shape[1]
        threshold = rule.threshold(examples)
        if rule.kind == "bernstein":
            lost = self.path(rule.kind, best, candidate, threshold)[at] < 0
        elif rule.kind == "full":
            lost = np.zeros(len(at), dtype=bool)
        else:
            lost = self.path(rule.kind, best, candidate)[at] < threshold
        if rule.kind == "wilcoxon":
            # Optuna's own safety: whoever is ahead of the best's full mean goes on.
            seen = self.grid[at]
            lost = lost & (self.sums[candidate, seen - 1] / seen < self.sums[best, -1] / examples)
        first = int(self.grid[at][lost.argmax()]) if lost.any() else examples
        if rule.certain:
            left = examples - np.arange(1, examples + 1)
            hopeless = self.sums[candidate] + left < self.sums[best, -1] - 1e-9
            first = min(first, int(hopeless.argmax()) + 1) if hopeless.any() else first
        return first


KINDS: dict[str, Callable[[Floats, NDArray[np.int64], float], Floats]] = {
    "wilcoxon": lambda d, looks, _: wilcoxon_path(d, looks),
    "pratt": lambda d, looks, _: wilcoxon_path(d, looks, pratt=True),
    "t": lambda d, looks, _: t_path(d, looks),
    "t, finite": lambda d, looks, _: t_path(d, looks, len(d)),
    "flip": lambda d, looks, _: ahead_path(d, looks),
    "ahead": lambda d, looks, _: ahead_path(d, looks, len(d)),
    "bernstein": bernstein_path,
    "betting": lambda d, looks, _: betting_path(d, looks),
}


@dataclass(frozen=True)
class Outcome:
    """What one race came to: examples seen by each candidate, and the final choice."""

    seen: tuple[int, ...]
    choice: int


def run(race: Race, rule: Rule) -> Outcome:
    """Race all candidates in their order."""
    if rule.kind in ("halving", "asha"):
        return _halving(race, rule) if rule.kind == "halving" else _asha(race, rule)
    examples = race.scores.shape[1]
    points = look_points(rule.config, examples)
    at = np.searchsorted(race.grid, points)
    best, seen = 0, [examples]
    for candidate in range(1, len(race.scores)):
        stopped = race.stop(rule, at, best, candidate)
        seen.append(stopped)
        if stopped == examples and race.sums[candidate, -1] > race.sums[best, -1]:
            best = candidate
    return Outcome(tuple(seen), best)


def _halving(race: Race, rule: Rule) -> Outcome:
    """All candidates side by side, the better half goes on with twice the examples; no sampler learns meanwhile."""
    examples, alive = race.scores.shape[1], np.arange(len(race.scores))
    seen, rung = np.zeros(len(alive), dtype=int), rule.config.min_examples
    while rung < examples and len(alive) > 1:
        seen[alive] = rung
        order = np.argsort(-race.sums[alive, rung - 1], kind="stable")
        alive, rung = np.sort(alive[order[: (len(alive) + 1) // 2]]), rung * 2
    seen[alive] = examples
    return Outcome(tuple(int(count) for count in seen), int(alive[race.sums[alive, -1].argmax()]))


def _asha(race: Race, rule: Rule) -> Outcome:
    """Optuna's SuccessiveHalvingPruner with its reduction factor of 4, on the mean so far."""
    examples, rungs, seen = race.scores.shape[1], {}, []
    for candidate in range(len(race.scores)):
        rung = rule.config.min_examples
        while rung < examples:
            mean = race.sums[candidate, rung - 1] / rung
            rungs.setdefault(rung, []).append(mean)
            if mean < sorted(rungs[rung])[-max(1, len(rungs[rung]) // 4)]:
                break
            rung *= 4
        seen.append(min(rung, examples))
    whole = [candidate for candidate, count in enumerate(seen) if count == examples]
    return Outcome(tuple(seen), max(whole, key=lambda candidate: (race.sums[candidate, -1], -candidate)))


@dataclass(frozen=True)
class Summary:
    """Means over seeds.

    Attributes:
        saved: share of the examples of a full evaluation that were not run; lost: how often every candidate with the
            best full score was stopped; regret: best full score minus that of the choice, in points of 100.
    """

    saved: float
    lost: float
    regret: float
    regret_error: float


def summaries(table: Table, rules: list[Rule], seeds: int) -> list[Summary]:
    """Return what every rule comes to on `seeds` orders of the table, the same orders for all rules."""
    grid = np.array(sorted({point for rule in rules for point in look_points(rule.config, table.examples)}))
    saved, regret = np.zeros((len(rules), seeds)), np.zeros((len(rules), seeds))
    for seed in range(seeds):
        race = Race(table.draw(seed), grid)
        full = race.sums[:, -1] / table.examples
        for index, rule in enumerate(rules):
            outcome = run(race, rule)
            saved[index, seed] = 1 - sum(outcome.seen) / race.scores.size
            regret[index, seed] = 100 * (full.max() - full[outcome.choice])
    return [
        Summary(s.mean(), (r > 1e-9).mean(), r.mean(), r.std() / np.sqrt(seeds))
        for s, r in zip(saved, regret, strict=True)
    ]
