"""The arms. Each searches its studies within joint's budget and says what is best of each kind."""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from joint_bench.records import Cell, seconds_of
from joint_bench.studies import ArmRun, prompt_params
from pydantic import JsonValue

from promptopt.candidate import Candidate
from promptopt.config.experiment import SearchConfig
from promptopt.config.joint import WeightsSearch
from promptopt.config.recipe import TrainingRecipe
from promptopt.study.search import TRIALS_FOLDER, SearchResult
from promptopt.study.space import TUNED, WEIGHTS
from promptopt.study.tuner import LORA_GGUF

JOINT, CROSSED = "joint", "crossed"
PROMPTS, RECIPES = "prompts", "recipes"
"""Names of an arm's studies: on frozen weights, and under one prompt."""


@dataclass(frozen=True)
class Best:
    """The best of one kind in an arm's studies. `lora` is None on frozen weights."""

    study: str
    trial: int
    value: float
    candidate: Candidate
    params: dict[str, JsonValue]
    recipe: TrainingRecipe | None = None
    weights_of: int | None = None
    lora: Path | None = None


@dataclass(frozen=True)
class Outcome:
    """What an arm found. `budget` is None for the arm that sets it, and where there is none."""

    frozen: Best
    tuned: Best | None
    budget: float | None = None


def untouched(run: ArmRun) -> Outcome:
    """The program as DSPy writes it."""
    found = run.search(PROMPTS, run.config(1))
    return Outcome(_frozen(PROMPTS, found), None)


def joint(run: ArmRun) -> Outcome:
    """One study over prompts and weights."""
    mine = run.settings
    weights = WeightsSearch(trials=mine.tuned, winners=mine.winners, after=mine.after)
    found = run.search(JOINT, run.config(mine.trials, weights))
    return Outcome(_frozen(JOINT, found), _tuned(run, JOINT, found))


def prompts_only(run: ArmRun) -> Outcome:
    """All compute for prompts."""
    found = _search_prompts(run, budget := _budget(run))
    return Outcome(_frozen(PROMPTS, found), None, budget)


def prompt_then_default(run: ArmRun) -> Outcome:
    """Prompts, then one training with the start recipe."""
    budget = _budget(run)
    found = _search_prompts(run, max(0.0, budget - _cost_of_default(run)))
    return _under(run, found, budget, lambda config: run.search(RECIPES, config(1)))


def prompt_then_recipe(run: ArmRun) -> Outcome:
    """As many prompts as in joint's first phase, then recipes under the best of them."""
    budget = _budget(run)
    found = run.search(PROMPTS, run.config(run.settings.trials))
    return _under(run, found, budget, lambda config: run.grow(RECIPES, config, budget, _cost_of_training(run), 1))


def weights_only(run: ArmRun) -> Outcome:
    """Recipes under the program as DSPy writes it."""
    budget = _budget(run)

    def config(trainings: int) -> SearchConfig:
        return run.config(1, _recipes(trainings), layout={}, demo_sets=0, fixed={WEIGHTS: TUNED})

    found = run.grow(RECIPES, config, budget, _cost_of_training(run), 1)
    return Outcome(_frozen(RECIPES, found), _tuned(run, RECIPES, found), budget)


def crossed(run: ArmRun) -> Outcome | None:
    """Joint's best recipe under joint's best frozen prompt; None where that is what joint did."""
    cell = _joint(run)
    if cell.tuned is None or prompt_params(trained_under(cell)) == prompt_params(cell.frozen.params):
        return None
    fixed = {**prompt_params(cell.frozen.params), WEIGHTS: TUNED}
    found = run.search(RECIPES, run.config(1, _recipes(1), fixed=fixed), cell.tuned.recipe)
    return Outcome(_frozen(RECIPES, found), _tuned(run, RECIPES, found))


ARMS: Mapping[str, Callable[[ArmRun], Outcome | None]] = {
    "untouched": untouched,
    JOINT: joint,
    "prompt_then_default": prompt_then_default,
    "prompt_then_recipe": prompt_then_recipe,
    "weights_only": weights_only,
    "prompts_only": prompts_only,
    CROSSED: crossed,
}
NEED_JOINT = ("prompt_then_default", "prompt_then_recipe", "weights_only", "prompts_only", CROSSED)


def trained_under(cell: Cell) -> dict[str, JsonValue]:
    """Return the parameters of the trial that trained the cell's best weights; a later trial may ask them otherwise."""
    best = cell.tuned
    lines = {(line.study, line.number): line for line in cell.trials}
    return {} if best is None else lines[best.study, best.trial if best.weights_of is None else best.weights_of].params


def _search_prompts(run: ArmRun, budget: float) -> SearchResult:
    each = _mean_cost(run, [line.spent for line in _joint(run).trials if line.number < run.settings.trials])
    return run.grow(PROMPTS, run.config, budget, each)


def _under(
    run: ArmRun, prompts: SearchResult, budget: float, searched: Callable[[Callable[[int], SearchConfig]], SearchResult]
) -> Outcome:
    """Search recipes under the best prompt; the study's own frozen trial reads the scores that prompt has already."""
    best = _frozen(PROMPTS, prompts)
    fixed = {**best.params, WEIGHTS: TUNED}
    shutil.copytree(run.folder / PROMPTS / "evaluations", run.folder / RECIPES / "evaluations", dirs_exist_ok=True)
    found = searched(lambda trainings: run.config(1, _recipes(trainings), fixed=fixed))
    if found.pools.key() != prompts.pools.key() or found.best.key() != best.candidate.key():
        raise RuntimeError("The recipes were searched under another prompt than the one found.")
    return Outcome(best, _tuned(run, RECIPES, found), budget)


def _recipes(trainings: int) -> WeightsSearch:
    """Return a search that trains so many times, with the start recipe first."""
    return WeightsSearch(trials=trainings, winners=1, after=0)


def _joint(run: ArmRun) -> Cell:
    if run.joint is None:
        raise RuntimeError("Joint runs first: it sets the budget.")
    return run.joint


def _budget(run: ArmRun) -> float:
    return seconds_of(_joint(run).spent, run.settings.unit)


def _cost_of_default(run: ArmRun) -> float:
    """Return what joint paid to tune its best prompt with the start recipe, or another where that one failed."""
    first = [line.spent for line in _joint(run).trials if line.number == run.settings.trials and line.trained]
    return _mean_cost(run, first) if first else _cost_of_training(run)


def _cost_of_training(run: ArmRun) -> float:
    return _mean_cost(run, [line.spent for line in _joint(run).trials if line.trained])


def _mean_cost(run: ArmRun, spent: list) -> float:
    costs = [seconds_of(one, run.settings.unit) for one in spent]
    return max(0.01, sum(costs) / len(costs)) if costs else 1.0


def _frozen(study: str, found: SearchResult) -> Best:
    trial = found.best_trial
    return Best(study, trial.number, trial.value or 0.0, found.best, prompt_params(trial.params))


def _tuned(run: ArmRun, study: str, found: SearchResult) -> Best | None:
    won = found.tuned
    if won is None:
        return None
    params = next(trial.params for trial in found.trials if trial.number == won.trial)
    lora = run.folder / study / TRIALS_FOLDER / str(won.weights_of) / LORA_GGUF
    return Best(study, won.trial, won.value, won.candidate, params, won.recipe, won.weights_of, lora)
