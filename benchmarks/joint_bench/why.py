"""What was picked, and why joint differs from a sequence, if it does."""

import statistics
from collections.abc import Callable, Mapping, Sequence

from engine_bench.report import table
from joint_bench.arms import trained_under
from joint_bench.records import Cell, Tested, TrialLine
from joint_bench.studies import prompt_params
from pydantic import JsonValue

from promptopt.config.recipe import TrainingRecipe
from promptopt.evaluation.statistics import PairedDifference
from promptopt.layout.spec import Layout

NOTHING = "–"
DSPY_LAYOUT = Layout().model_dump()


def pick_table(start: TrainingRecipe, cells: Sequence[Cell], titles: Mapping[str, str]) -> str:
    """Return what each cell would deploy."""
    headings = ("arm", "seed", "weights", "validation", "test", "learning rate", "recipe", "prompt")
    rows = []
    for cell in cells:
        best = cell.deployed
        rate = NOTHING if best.recipe is None else f"{best.recipe.learning_rate:.2g}"
        rows.append([
            titles[cell.arm], str(cell.seed), "frozen" if best.recipe is None else "tuned",
            f"{best.val:.3f}", f"{best.test:.3f}", rate, recipe_text(start, best.recipe), prompt_text(best),
        ])  # fmt: skip
    return table(headings, rows)


def recipe_text(start: TrainingRecipe, recipe: TrainingRecipe | None) -> str:
    """Return how a recipe differs from the start recipe, the learning rate aside."""
    if recipe is None:
        return NOTHING
    own, base = recipe.model_dump(), start.model_dump()
    changed = {name: value for name, value in own.items() if value != base[name] and name != "learning_rate"}
    return ", ".join(f"{name} {_short(value)}" for name, value in changed.items()) or "as at the start"


def prompt_text(best: Tested) -> str:
    """Return how a prompt differs from DSPy's, with the number of its demos."""
    layout = best.candidate.layout.model_dump()
    changed = [f"{name} {_short(value)}" for name, value in layout.items() if value != DSPY_LAYOUT.get(name)]
    demos = sum(len(prompt.demos) for prompt in best.candidate.predictors.values())
    return ", ".join([*changed, *([f"{demos} demos"] if demos else [])]) or "DSPy's"


def why_table(cells: Sequence[Cell], crossed: Mapping[int, Cell]) -> str:
    """Return joint's studies seed by seed."""
    headings = (
        "seed", "best frozen prompt: validation", "test", "the same, start recipe: validation",
        "the same, joint's best recipe: validation", "test", "best tuned trial: validation", "test", "it is",
        "prompt it was trained under: rank among frozen", "parameters that differ from the best frozen prompt",
    )  # fmt: skip
    return table(headings, [_why(cell, crossed.get(cell.seed)) for cell in cells])


def _why(cell: Cell, other: Cell | None) -> list[str]:
    frozen, tuned = cell.frozen, cell.tuned
    start = [f"{frozen.val:.3f}", f"{frozen.test:.3f}", _with_start_recipe(cell)]
    if tuned is None:
        return [str(cell.seed), *start, *[NOTHING] * 7]
    differing = differing_params(cell)
    answer = other.tuned if other is not None else tuned if not differing else None
    return [
        str(cell.seed), *start,
        f"{answer.val:.3f}" if answer else NOTHING, f"{answer.test:.3f}" if answer else NOTHING,
        f"{tuned.val:.3f}", f"{tuned.test:.3f}", _origin(cell, tuned), _rank(cell), ", ".join(differing) or "none",
    ]  # fmt: skip


def differing_params(cell: Cell) -> list[str]:
    """Return which parameters of the prompt differ between the best frozen trial and the one that trained the best."""
    frozen, trained = prompt_params(cell.frozen.params), prompt_params(trained_under(cell))
    return [name.removeprefix("layout.") for name in frozen if frozen[name] != trained.get(name)]


def _with_start_recipe(cell: Cell) -> str:
    """Return what the best frozen prompt scored when joint tuned it as its first winner."""
    prompt = prompt_params(cell.frozen.params)
    first = [line for line in _winners(cell) if prompt_params(line.params) == prompt]
    return _value(first[0]) if first else NOTHING


def _winners(cell: Cell) -> list[TrialLine]:
    begin = cell.settings.trials
    return [line for line in cell.trials if begin <= line.number < begin + cell.settings.winners]


def _value(line: TrialLine) -> str:
    if line.value is None:
        return line.state
    return f"{line.value:.3f}" + (" (stopped, estimate)" if line.state == "raced_out" else "")


def _origin(cell: Cell, tuned: Tested) -> str:
    """Return from which part of the study the best tuned trial came."""
    mine = cell.settings
    if tuned.trial >= mine.trials + mine.tuned:
        return f"another prompt on the weights of trial {tuned.weights_of}"
    rank = tuned.trial - mine.trials
    return f"winner {rank + 1} with the start recipe" if rank < mine.winners else "the sampler's"


def _rank(cell: Cell) -> str:
    """Return where the prompt under which the best weights were trained stood on frozen weights."""
    trained = prompt_params(trained_under(cell))
    frozen = [line for line in cell.trials if line.kind == "frozen" and line.value is not None]
    ordered = sorted(frozen, key=lambda line: -(line.value or 0.0))
    place = next((n for n, line in enumerate(ordered, 1) if prompt_params(line.params) == trained), None)
    return "not tried" if place is None else f"{place} of {len(ordered)}"


def crossing_line(
    cells: Sequence[Cell],
    crossed: Mapping[int, Cell],
    difference: Callable[[Sequence[Tested], Sequence[Tested]], PairedDifference],
) -> str:
    """Return what training under another prompt than the best frozen one was worth, over the seeds that can say."""
    tuned = [cell for cell in cells if cell.tuned is not None]
    other = [cell for cell in tuned if differing_params(cell)]
    line = (
        f"In {len(other)} of {len(tuned)} seeds the best weights were trained under another prompt than the best "
        "frozen one"
    )
    pairs = [
        (crossed[cell.seed].tuned, cell.tuned) for cell in other
        if cell.seed in crossed and crossed[cell.seed].tuned is not None
    ]  # fmt: skip
    if not pairs:
        return line + "."
    before, after = [a for a, _ in pairs if a is not None], [b for _, b in pairs if b is not None]
    gap = difference(before, after)
    val = statistics.fmean(one.val for one in after) - statistics.fmean(one.val for one in before)
    return (
        f"{line}. In the {len(pairs)} of them that were crossed, the best tuned trial minus the same recipe under the "
        f"best frozen prompt: validation {val:+.3f} (where it was chosen), test {gap.mean:+.3f} "
        f"[{gap.low:+.3f}, {gap.high:+.3f}]."
    )


def _short(value: JsonValue) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
