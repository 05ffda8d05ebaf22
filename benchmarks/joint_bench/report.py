"""Cells -> Markdown. Runs no model."""

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from engine_bench.report import table
from joint_bench.arms import ARMS, CROSSED, JOINT
from joint_bench.records import Cell, Settings, Tested, seconds_of
from joint_bench.why import crossing_line, pick_table, why_table
from search_bench.records import Setup

from promptopt.evaluation.statistics import PairedDifference, paired_bootstrap

SAME = 1e-9
NOTHING = "–"
TOLERANCE = 0.15
TITLES = {
    "untouched": "untouched program",
    JOINT: "**joint**: one study",
    "prompt_then_default": "prompt, then default recipe",
    "prompt_then_recipe": "prompt, then recipe search",
    "weights_only": "weights only (DSPy's prompt)",
    "prompts_only": "prompts only",
}


@dataclass(frozen=True)
class TaskResults:
    """All cells of one task, setup and settings.

    Attributes:
        arms: arm -> seed -> cell, in the order arms are known in; `crossed` is not among them.
        crossed: seed -> cell.
    """

    task: str
    setup: Setup
    settings: Settings
    arms: Mapping[str, Mapping[int, Cell]]
    crossed: Mapping[int, Cell]

    @property
    def seeds(self) -> list[int]:
        """Seeds for which every arm has a cell."""
        shared = set.intersection(*(set(cells) for cells in self.arms.values())) if self.arms else set()
        return sorted(shared)

    def of(self, arm: str) -> list[Cell]:
        """Return the arm's cells of the shared seeds."""
        return [self.arms[arm][seed] for seed in self.seeds]


def by_task(cells: Iterable[Cell]) -> list[TaskResults]:
    """Return the results of every task, setup and settings; of two cells with equal arm and seed the later counts."""
    grouped: dict[str, dict[str, dict[int, Cell]]] = {}
    first: dict[str, Cell] = {}
    for cell in cells:
        key = "\n".join([cell.task, cell.setup.model_dump_json(), cell.settings.model_dump_json()])
        first.setdefault(key, cell)
        grouped.setdefault(key, {}).setdefault(cell.arm, {})[cell.seed] = cell
    return [
        TaskResults(
            first[key].task, first[key].setup, first[key].settings,
            {arm: arms[arm] for arm in ARMS if arm in arms and arm != CROSSED}, arms.get(CROSSED, {}),
        )
        for key, arms in grouped.items()
    ]  # fmt: skip


def row_means(found: Sequence[Tested]) -> dict[str, float]:
    """Return test row -> mean score over seeds; a row that a seed lacks is left out."""
    shared = set.intersection(*(set(one.scores) for one in found))
    return {row: statistics.fmean(one.scores[row] for one in found) for row in sorted(shared)}


def difference(before: Sequence[Tested], after: Sequence[Tested]) -> PairedDifference:
    """Return after - before on the test rows, paired by row; both have the same seeds."""
    first, second = row_means(before), row_means(after)
    rows = sorted(first.keys() & second.keys())
    return paired_bootstrap([first[row] for row in rows], [second[row] for row in rows], seed=0)


def signs(before: Sequence[Tested], after: Sequence[Tested]) -> str:
    """Return in how many seeds `after` has the higher, the same and the lower mean test score."""
    gaps = [b.test - a.test for a, b in zip(before, after, strict=True)]
    higher, lower = sum(gap > SAME for gap in gaps), sum(gap < -SAME for gap in gaps)
    return f"{higher}, {len(gaps) - higher - lower}, {lower}"


def score_table(results: TaskResults) -> str:
    """Return what each arm would deploy: validation and test scores, and how far it is from joint."""
    headings = (
        "arm", "validation", "test", "arm - joint on test [95 %]", "seeds better, same, worse than joint",
        "tuned deployed", "best frozen, test", "best tuned, test",
    )  # fmt: skip
    own = [cell.deployed for cell in results.of(JOINT)] if JOINT in results.arms else []
    rows = []
    for arm in results.arms:
        cells = results.of(arm)
        mine = [cell.deployed for cell in cells]
        against = bool(own) and arm != JOINT
        tuned = [cell.tuned for cell in cells if cell.tuned is not None]
        rows.append([
            TITLES[arm],
            f"{statistics.fmean(one.val for one in mine):.3f}",
            f"{statistics.fmean(one.test for one in mine):.3f}",
            interval(difference(own, mine)) if against else NOTHING,
            signs(own, mine) if against else NOTHING,
            f"{sum(cell.deployed is cell.tuned for cell in cells)} of {len(cells)}",
            f"{statistics.fmean(cell.frozen.test for cell in cells):.3f}",
            f"{statistics.fmean(one.test for one in tuned):.3f}" if tuned else NOTHING,
        ])  # fmt: skip
    return table(headings, rows)


def interval(found: PairedDifference) -> str:
    """Return a difference with its interval."""
    return f"{found.mean:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"


def cost_table(results: TaskResults) -> str:
    """Return what each arm spent, means over seeds."""
    headings = (
        "arm", "CPU s", "wall s", "training wall s", "LM tokens", "tokens trained on", "prompts on frozen weights",
        "trainings", "stopped early", "failed",
    )  # fmt: skip
    columns: Sequence[Callable[[Cell], float]] = (
        lambda cell: cell.spent.cpu_seconds,
        lambda cell: cell.spent.seconds,
        lambda cell: sum(line.train_wall_s for line in cell.trials),
        lambda cell: cell.spent.prompt_tokens + cell.spent.completion_tokens,
        lambda cell: sum(line.trained for line in cell.trials),
        lambda cell: sum(line.kind == "frozen" for line in cell.trials),
        lambda cell: cell.trainings,
        lambda cell: sum(line.state == "raced_out" and line.trained > 0 for line in cell.trials),
        lambda cell: sum(line.state == "failed" for line in cell.trials),
    )
    rows = []
    for arm in results.arms:
        means = [statistics.fmean(column(cell) for cell in results.of(arm)) for column in columns]
        rows.append([TITLES[arm], *(f"{mean:,.0f}" for mean in means[:5]), *(f"{mean:.1f}" for mean in means[5:])])
    return table(headings, rows)


def equality(results: TaskResults) -> str:
    """Return how equal the arms' compute was."""
    unit = results.settings.unit
    shares: dict[str, list[float]] = {}
    for arm in results.arms:
        for cell in results.of(arm):
            if cell.budget:
                shares.setdefault(arm, []).append(seconds_of(cell.spent, unit) / cell.budget)
    if not shares:
        return ""
    named = ", ".join(
        f"{TITLES[arm]} {statistics.fmean(mine):.2f} ({min(mine):.2f} to {max(mine):.2f})"
        for arm, mine in shares.items()
    )
    off = [TITLES[arm] for arm, mine in shares.items() if abs(statistics.fmean(mine) - 1) > TOLERANCE]
    seeds = sum(abs(share - 1) > TOLERANCE for mine in shares.values() for share in mine)
    cells = sum(len(mine) for mine in shares.values())
    verdict = f"**Not equal within {TOLERANCE:.0%} in the mean: {', '.join(off)}.**" if off else (
        f"All within {TOLERANCE:.0%} in the mean.")  # fmt: skip
    unit_name = "CPU" if unit == "cpu" else "wall"
    return (
        f"{unit_name} seconds as a share of joint's, mean over seeds (lowest to highest): {named}. {verdict} "
        f"{seeds} of {cells} single cells are further off than {TOLERANCE:.0%}."
    )


def task_report(results: TaskResults) -> str:
    """Return all tables of one task."""
    if not results.seeds:
        return f"### {results.task}\n\nNo seed has a cell of every arm yet.\n"
    parts = [
        _heading(results),
        score_table(results),
        "Last two columns: the arm's best prompt on frozen weights and its best tuned weights, whichever was deployed.",
        "What it cost, means over seeds:",
        cost_table(results),
        equality(results),
        "What was deployed (settings that differ from the start recipe and from DSPy's layout):",
        pick_table(results.settings.recipe, [cell for arm in results.arms for cell in results.of(arm)], TITLES),
    ]
    if JOINT in results.arms:
        cells = results.of(JOINT)
        parts += [
            "Why: in joint's study, the best frozen prompt, tuned with the start recipe in the same study and with "
            "joint's best recipe (`crossed`), against the best tuned trial:",
            why_table(cells, results.crossed),
            crossing_line(cells, results.crossed, difference),
        ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _heading(results: TaskResults) -> str:
    cell, setup, mine = results.of(next(iter(results.arms)))[0], results.setup, results.settings
    remark = f" ({cell.metric_remark})" if cell.metric_remark else ""
    recipe = mine.recipe
    return (
        f"### {results.task}\n\n{len(results.seeds)} seeds. {setup.model} (sha256 {setup.model_sha256[:12]}), context "
        f"{setup.n_ctx}, {setup.threads or 'all'} threads; {cell.notes['train']} train, {cell.notes['val']} "
        f"validation, {cell.notes['test']} test rows; metric {cell.metric}{remark}. Joint: {mine.trials} frozen, "
        f"{mine.tuned} of both kinds, {mine.after} on tuned weights. Start recipe: rank {recipe.rank}, learning rate "
        f"{recipe.learning_rate:g}, {recipe.epochs:g} epochs, batch {recipe.batch_size}."
    )


def remarks(cells: Sequence[Cell]) -> str:
    """Return where the numbers come from."""
    host = cells[0].host
    loads = [float(str(cell.host["load_before"])) for cell in cells]
    codes = sorted({cell.code for cell in cells})
    libraries = host.get("libraries")
    known = {name: version for name, version in libraries.items() if version} if isinstance(libraries, dict) else {}
    mixed = " Cells come from different code: measure them anew in a new folder." if len(codes) > 1 else ""
    return (
        f"{', '.join(sorted({str(cell.host['cpu']) for cell in cells}))}, {host['cores']} cores, load "
        f"{min(loads):.1f} to {max(loads):.1f} when cells began; "
        f"{', '.join(f'{name} {version}' for name, version in known.items())}; code {', '.join(codes)}.{mixed}"
    )


def whole_report(cells: Sequence[Cell]) -> str:
    """Return the report of all tasks."""
    if not cells:
        return "There are no results yet.\n"
    return "\n".join([remarks(cells), "", *(task_report(one) for one in by_task(cells))])
