"""The numbers of a measurement as Markdown, made of the results alone."""

import math
import statistics
from collections.abc import Iterable, Sequence

from engine_bench.report import table
from search_bench.analysis import (
    COSTS,
    OURS,
    PEER,
    UNTOUCHED,
    Choice,
    Cost,
    TaskResults,
    best_within,
    choices,
    reach_of_peer,
    seeds_better,
    seeds_that_count,
    test_difference,
    test_mean,
)  # fmt: skip
from search_bench.records import Cell

from promptopt.evaluation.statistics import PairedDifference

TITLES = {
    UNTOUCHED: "untouched program",
    OURS: "promptopt",
    "random": "random layouts",
    PEER: "dspy.MIPROv2",
    "bootstrap": "dspy BootstrapFewShotWithRandomSearch",
}
SHARES = (0.1, 0.2, 1 / 3, 0.5, 1.0, 2.0)
GOAL = 1 / 3
NOTHING = "–"
UNITS = {
    "tokens": "LM tokens", "computed": "LM tokens, computed ones only", "asked": "LM tokens, with repeated requests",
    "seconds": "seconds", "cpu": "CPU seconds",
}  # fmt: skip


def task_report(results: TaskResults, unit: str) -> str:
    """Return all tables and the verdict of one task; `unit` names what budgets are counted in."""
    cost = COSTS[unit]
    seeds = results.seeds
    if not seeds:
        return f"### {results.task}\n\nNo seed has a cell of every method yet.\n"
    parts = [
        _heading(results),
        f"Means over {len(seeds)} seeds (medians of tokens and seconds). Budgets count {UNITS[unit]}.",
        search_table(results, cost),
        f"Validation score so far, by share of all the {UNITS[unit]} that MIPROv2 spent, and by share of its seconds:",
        curve_table(results, cost),
        "On the test rows, each method with the best program it had found within the smallest total of all searches:",
        test_table(results, cost, "equal"),
        "The same with what each found in the end, whatever it spent:",
        test_table(results, cost, "end"),
        *verdict(results, cost, unit),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def search_table(results: TaskResults, cost: Cost) -> str:
    """Return what each method came to on the validation rows, and what it spent."""
    headings = (
        "method", "validation score", "LM tokens", "computed", "repeated", "seconds", "CPU s",
        "to MIPROv2's score", "seeds", "x MIPROv2 to there", "x all of MIPROv2",
    )  # fmt: skip
    rows = []
    for method, cells in _ordered(results):
        mine = [cells[seed] for seed in results.seeds]
        reach = reach_of_peer(results, method, cost) if method != UNTOUCHED else None
        rows.append([
            TITLES.get(method, method),
            _score(statistics.fmean(best.score if (best := best_within(cell, cost)) else 0.0 for cell in mine)),
            _count(COSTS["tokens"](cell.spent) for cell in mine),
            _count(COSTS["computed"](cell.spent) for cell in mine),
            _count(cell.spent.remembered_tokens for cell in mine),
            _count(cell.spent.seconds for cell in mine),
            _count(cell.spent.cpu_seconds for cell in mine),
            _count(reach.costs) if reach else NOTHING,
            f"{reach.reached} of {len(reach.costs)}" if reach else NOTHING,
            _ratio(reach.shares) if reach else NOTHING,
            _ratio(reach.shares_of_all) if reach else NOTHING,
        ])  # fmt: skip
    return table(headings, rows)


def curve_table(results: TaskResults, cost: Cost) -> str:
    """Return the best validation score so far at shares of what MIPROv2 spent."""
    if PEER not in results.cells:
        return ""
    blocks = [(cost, ""), (COSTS["seconds"], " of s")]
    headings = ("method", *(f"{share:.0%}{mark}" for _, mark in blocks for share in SHARES))
    rows = []
    for method, cells in _ordered(results):
        if method != UNTOUCHED:
            cellwise = [(cells[seed], results.cells[PEER][seed]) for seed in results.seeds]
            marks = [_so_far(cellwise, block, share) for block, _ in blocks for share in SHARES]
            rows.append([TITLES.get(method, method), *marks])
    return table(headings, rows)


def _so_far(cells: Sequence[tuple[Cell, Cell]], cost: Cost, share: float) -> str:
    bests = [best_within(mine, cost, share * cost(peer.spent)) for mine, peer in cells]
    known = [best.score for best in bests if best is not None]
    return _score(statistics.fmean(known)) if len(known) == len(bests) else NOTHING


def test_table(results: TaskResults, cost: Cost, when: str) -> str:
    """Return test scores, and their paired differences from the untouched program and from MIPROv2."""
    chosen = {choice.method: choice for choice in choices(results, cost)[when]}
    headings = ("method", "test score", "- untouched", "- MIPROv2", "seeds better, same, worse than MIPROv2")
    rows = []
    for method, _ in _ordered(results):
        mine = chosen[method]
        mean = test_mean(results, mine)
        peer = chosen.get(PEER)
        against = peer is not None and method != PEER
        rows.append([
            TITLES.get(method, method),
            NOTHING if mean is None else _score(mean),
            _against(results, chosen.get(UNTOUCHED), mine) if method != UNTOUCHED else NOTHING,
            _against(results, peer, mine) if against else NOTHING,
            ", ".join(map(str, seeds_better(results, peer, mine))) if against and peer else NOTHING,
        ])  # fmt: skip
    return table(headings, rows)


def verdict(results: TaskResults, cost: Cost, unit: str) -> list[str]:
    """Return whether the goal was reached: MIPROv2's validation score with at most a third of its cost."""
    lines = [
        f"**Goal (MIPROv2's final validation score with at most a third of its {UNITS[unit]}): {goal(results, cost)}.**"
    ]
    made = choices(results, cost)
    if "third" in made:
        peer = next(choice for choice in made["end"] if choice.method == PEER)
        difference = test_difference(results, peer, made["third"][0])
        if difference:
            lines.append(
                f"On the test rows, promptopt after a third of all that MIPROv2 spent, minus MIPROv2 at its end: "
                f"{_difference(difference)}."
            )
    return lines


def goal(results: TaskResults, cost: Cost) -> str:
    """Return in words whether the goal was reached, by the stricter and by the looser reading."""
    if OURS not in results.cells or PEER not in results.cells:
        return "promptopt or MIPROv2 was not measured"
    counting, seeds = len(seeds_that_count(results)), len(results.seeds)
    reach = reach_of_peer(results, OURS, cost)
    if reach is None:
        return f"nothing can be said, MIPROv2 found nothing better than the untouched program in any of {seeds} seeds"
    strict, loose = (_reached(shares) for shares in (reach.shares, reach.shares_of_all))
    return (
        f"{strict} of what MIPROv2 had spent when it first had that score; {loose} of all it spent; medians over the "
        f"{counting} of {seeds} seeds in which MIPROv2 improved on the untouched program, promptopt got there in "
        f"{reach.reached}"
    )


def _reached(shares: Sequence[float]) -> str:
    middle = statistics.median(shares)
    return f"{'reached' if middle <= GOAL else 'not reached'}, {_ratio(shares)}"


def remarks(results: Sequence[TaskResults]) -> str:
    """Return where the numbers come from."""
    cells = [cell for one in results for methods in one.cells.values() for cell in methods.values()]
    host = cells[0].host
    libraries = host.get("libraries")
    known = {name: version for name, version in libraries.items() if version} if isinstance(libraries, dict) else {}
    loads = [float(str(cell.host["load_before"])) for cell in cells]
    codes = sorted({cell.code for cell in cells if cell.method in (OURS, "random")})
    machines = {str(cell.host["cpu"]) for cell in cells}
    lines = [
        f"{', '.join(sorted(machines))}, {host['cores']} cores, load {min(loads):.1f} to {max(loads):.1f} when cells "
        f"began, {', '.join(f'{name} {version}' for name, version in known.items())}.",
        f"promptopt's search has code {', '.join(codes)}." if codes else "",
        "Cells of promptopt come from different code: measure them anew in a new folder." if len(codes) > 1 else "",
    ]
    return " ".join(line for line in lines if line)


def _heading(results: TaskResults) -> str:
    any_cell = next(iter(next(iter(results.cells.values())).values()))
    notes, setup = any_cell.notes, results.setup
    remark = f" ({any_cell.metric_remark})" if any_cell.metric_remark else ""
    return (
        f"### {results.task}\n\n{setup.model} (sha256 {setup.model_sha256[:12]}), context {setup.n_ctx}, "
        f"{setup.threads or 'all'} threads, {notes['parallel']} requests at once; "
        f"{notes['train']} train, {notes['val']} validation, {notes['test']} test rows; "
        f"metric {any_cell.metric}{remark}. "
        f"{notes['rows_too_long']} of {notes['rows_looked_at']} rows were left out: too long for the context."
        f"{_peer_notes(results)}"
    )


def _peer_notes(results: TaskResults) -> str:
    cells = list(results.cells.get(PEER, {}).values())
    if not cells:
        return ""
    unread = sum(int(str(cell.notes["proposals_unread"])) for cell in cells)
    asked = sum(int(str(cell.notes["proposals"])) for cell in cells)
    modes = ", ".join(sorted({str(cell.settings["mipro"]) for cell in cells}))
    return (
        f" MIPROv2 ran in mode {modes}; {unread} of the {asked} instructions it asked the model for could not be read."
    )


def _ordered(results: TaskResults) -> list[tuple[str, dict[int, Cell]]]:
    known = [method for method in TITLES if method in results.cells]
    return [(method, dict(results.cells[method])) for method in known]


def _against(results: TaskResults, before: Choice | None, after: Choice) -> str:
    difference = test_difference(results, before, after) if before else None
    return _difference(difference) if difference else NOTHING


def _difference(difference: PairedDifference) -> str:
    return f"{difference.mean:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]"


def _score(value: float) -> str:
    return f"{value:.3f}"


def _count(values: Iterable[float]) -> str:
    middle = statistics.median(values)
    return f"{middle:,.0f}" if math.isfinite(middle) else "never"


def _ratio(shares: Sequence[float]) -> str:
    middle = statistics.median(shares)
    return f"{middle:.2f}" if math.isfinite(middle) else "never"


def whole_report(results: Sequence[TaskResults], unit: str) -> str:
    """Return the report of all tasks."""
    if not results:
        return "There are no results yet.\n"
    cost = COSTS[unit]
    summary = [f"- {one.task}: {goal(one, cost)}" for one in results if one.seeds]
    head = [f"Goal: MIPROv2's validation score with at most a third of its {UNITS[unit]}.", "", *summary, ""]
    return "\n".join([remarks(results), "", *head, *(task_report(one, unit) for one in results)])
