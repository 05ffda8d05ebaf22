"""Cells and test scores -> what was best when, what it took, and paired differences. Runs no model, prints nothing."""

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from search_bench.records import Cell, Point, SavedProgram, Setup, Spent, TestScores

from promptopt.evaluation.statistics import PairedDifference, paired_bootstrap

OURS, PEER, UNTOUCHED = "promptopt", "mipro", "untouched"
SAME = 1e-9
"""Two scores that differ by less were added up in another order."""

Cost = Callable[[Spent], float]
COSTS: Mapping[str, Cost] = {
    "tokens": lambda spent: spent.prompt_tokens + spent.completion_tokens,
    "computed": lambda spent: spent.prompt_tokens_computed + spent.completion_tokens,
    "asked": lambda spent: spent.prompt_tokens + spent.completion_tokens + spent.remembered_tokens,
    "seconds": lambda spent: spent.seconds,
    "cpu": lambda spent: spent.cpu_seconds,
}
"""Ways to count: tokens of all requests that reached the model; without prompt tokens the engine still had in memory;
with those of repeated requests that were answered from memory; wall time; processor time, which others' work on the
machine disturbs less."""


@dataclass(frozen=True)
class Choice:
    """Which program of a method counts: the best it had found within a budget, per seed."""

    method: str
    programs: Mapping[int, SavedProgram]


@dataclass(frozen=True)
class TaskResults:
    """All cells of one task and setup.

    Attributes:
        cells: method -> seed -> cell.
        tests: program key -> scores.
    """

    task: str
    setup: Setup
    cells: Mapping[str, Mapping[int, Cell]]
    tests: Mapping[str, TestScores]

    @property
    def searches(self) -> list[str]:
        """The methods that search."""
        return [method for method in self.cells if method != UNTOUCHED]

    @property
    def seeds(self) -> list[int]:
        """Seeds for which every method has a cell."""
        shared = set.intersection(*(set(cells) for cells in self.cells.values()))
        return sorted(shared)

    def untouched(self) -> SavedProgram | None:
        """Return the program as it was written."""
        cells = self.cells.get(UNTOUCHED, {})
        return next((next(iter(cell.programs.values())) for cell in cells.values()), None)


def by_task(cells: Iterable[Cell], tests: Iterable[TestScores]) -> list[TaskResults]:
    """Return the results of every (setup, task); of two cells with the same method and seed the later one counts."""
    grouped: dict[tuple[Setup, str], dict[str, dict[int, Cell]]] = {}
    for cell in cells:
        grouped.setdefault((cell.setup, cell.task), {}).setdefault(cell.method, {})[cell.seed] = cell
    scores: dict[tuple[Setup, str], dict[str, TestScores]] = {}
    for test in tests:
        scores.setdefault((test.setup, test.task), {})[test.program] = test
    return [
        TaskResults(task, setup, methods, scores.get((setup, task), {})) for (setup, task), methods in grouped.items()
    ]


def best_within(cell: Cell, cost: Cost, budget: float = math.inf) -> Point | None:
    """Return the best point that was reached for at most `budget`; of equals, the first."""
    inside = [point for point in cell.curve if cost(point.spent) <= budget]
    return max(inside, key=lambda point: point.score, default=None)


def cost_to_reach(cell: Cell, target: float, cost: Cost) -> float:
    """Return what had been spent when a program first scored `target`; infinity if none did."""
    return next((cost(point.spent) for point in cell.curve if point.score >= target - SAME), math.inf)


@dataclass(frozen=True)
class Reach:
    """What a method spent, over seeds, until it had the peer's final validation score.

    Attributes:
        costs: per seed; infinity where it never had.
        shares: of what the peer itself had spent when it first had that score.
        shares_of_all: of all the peer spent.
    """

    costs: Sequence[float]
    shares: Sequence[float]
    shares_of_all: Sequence[float]

    @property
    def reached(self) -> int:
        """In how many seeds it did."""
        return sum(math.isfinite(cost) for cost in self.costs)


def seeds_that_count(results: TaskResults) -> list[int]:
    """Return the seeds in which the peer found something better than the first program it scored, the untouched one.

    Elsewhere its final score is there for the cost of one evaluation: reaching it says nothing about a search.
    """
    peers = results.cells.get(PEER, {})
    return [
        seed for seed in results.seeds
        if seed in peers and max(point.score for point in peers[seed].curve) > peers[seed].curve[0].score + SAME
    ]  # fmt: skip


def reach_of_peer(results: TaskResults, method: str, cost: Cost) -> Reach | None:
    """Return how `method` reaches the peer's final score, over the seeds that count; None if there are none."""
    costs, shares, shares_of_all = [], [], []
    for seed in seeds_that_count(results):
        peer = results.cells[PEER][seed]
        target = max(point.score for point in peer.curve)
        spent = cost_to_reach(results.cells[method][seed], target, cost)
        costs.append(spent)
        shares.append(spent / max(1e-9, cost_to_reach(peer, target, cost)))
        shares_of_all.append(spent / max(1e-9, cost(peer.spent)))
    return Reach(costs, shares, shares_of_all) if costs else None


def common_budgets(results: TaskResults, cost: Cost) -> dict[int, float]:
    """Return per seed the smallest total of all searches."""
    return {
        seed: min((cost(results.cells[method][seed].spent) for method in results.searches), default=0.0)
        for seed in results.seeds
    }


def choose(results: TaskResults, method: str, cost: Cost, budgets: Mapping[int, float] | None = None) -> Choice:
    """Return the best programs of `method` within budgets per seed; None = all it had. Nothing found: the untouched."""
    programs = {}
    for seed in results.seeds:
        cell = results.cells[method][seed]
        best = best_within(cell, cost, math.inf if budgets is None else budgets[seed])
        saved = results.untouched() if best is None else cell.programs[best.program]
        if saved is not None:
            programs[seed] = saved
    return Choice(method, programs)


def peer_budgets(results: TaskResults, cost: Cost, share: float) -> dict[int, float]:
    """Return per seed a share of all that the peer spent."""
    return {seed: share * cost(results.cells[PEER][seed].spent) for seed in results.seeds}


def choices(results: TaskResults, cost: Cost) -> dict[str, list[Choice]]:
    """Return all that the report compares on the test rows: "equal", "end", and ours at "third" of the peer's cost."""
    budgets = common_budgets(results, cost)
    made = {
        "equal": [choose(results, method, cost, budgets) for method in results.cells],
        "end": [choose(results, method, cost) for method in results.cells],
    }
    if OURS in results.cells and PEER in results.cells:
        made["third"] = [choose(results, OURS, cost, peer_budgets(results, cost, 1 / 3))]
    return made


def untested(results: TaskResults, cost: Cost) -> dict[str, SavedProgram]:
    """Return the programs that the report needs on the test rows and that have no scores yet, by key."""
    needed = [one for made in choices(results, cost).values() for choice in made for one in choice.programs.values()]
    return {program.key(): program for program in needed if program.key() not in results.tests}


def test_mean(results: TaskResults, choice: Choice) -> float | None:
    """Return the mean test score over seeds; None where a program was not tested."""
    rows = _scores_by_row(results, choice, list(choice.programs))
    return statistics.fmean(rows.values()) if rows else None


def test_difference(results: TaskResults, before: Choice, after: Choice) -> PairedDifference | None:
    """Return after - before on the test rows: per row the mean over seeds, then paired over rows.

    Seeds share the test rows, so their rows are not independent: a row counts once, whatever the number of seeds.
    """
    seeds = sorted(before.programs.keys() & after.programs.keys())
    first, second = _scores_by_row(results, before, seeds), _scores_by_row(results, after, seeds)
    shared = sorted(first.keys() & second.keys())
    return paired_bootstrap([first[r] for r in shared], [second[r] for r in shared], seed=0) if shared else None


def seeds_better(results: TaskResults, before: Choice, after: Choice) -> tuple[int, int, int]:
    """Return in how many seeds `after` has the higher, the same and the lower mean test score."""
    signs = []
    for seed in sorted(before.programs.keys() & after.programs.keys()):
        means = [_scores_by_row(results, choice, [seed]) for choice in (before, after)]
        if all(means):
            signs.append(statistics.fmean(means[1].values()) - statistics.fmean(means[0].values()))
    higher, lower = sum(sign > SAME for sign in signs), sum(sign < -SAME for sign in signs)
    return higher, len(signs) - higher - lower, lower


def _scores_by_row(results: TaskResults, choice: Choice, seeds: Sequence[int]) -> dict[str, float]:
    """Return row -> mean score over seeds; nothing where a program has no test scores."""
    tables = [results.tests.get(choice.programs[seed].key()) for seed in seeds]
    known = [table.scores for table in tables if table is not None]
    if not known or len(known) < len(tables):
        return {}
    return {row: statistics.fmean(scores[row] for scores in known) for row in known[0]}
