"""Generations of a study: pools that grow, and a new study version that knows the trials of the old one.

Reflection on failures follows GEPA (arXiv 2507.19457). It reads failures on training rows: what is written from
validation rows would be measured on what it was told.
"""

from collections.abc import Sequence
from pathlib import Path

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from promptopt.candidate import Candidate
from promptopt.config.experiment import SearchConfig
from promptopt.config.joint import NumberRange, Searched
from promptopt.errors import ConfigError
from promptopt.evaluation.evaluate import Evaluator, evaluate_rows
from promptopt.pools.build import build_rich_pools
from promptopt.pools.pool import Pools
from promptopt.pools.reflection import reflect_on_failures
from promptopt.pools.settings import PoolSettings
from promptopt.rundir import read_json, write_json
from promptopt.study.space import SearchSpace
from promptopt.study.task import SearchTask
from promptopt.study.trials import SLOT, finished, slot_of


def pools_file(folder: Path, generation: int) -> Path:
    """Return where the pools of a generation are kept."""
    return folder / ("pools.json" if generation == 0 else f"pools-g{generation}.json")


def version_name(study_name: str, generation: int) -> str:
    """Return the name of a generation's study."""
    return study_name if generation == 0 else f"{study_name}-g{generation}"


def first_pools(task: SearchTask, config: SearchConfig, seed: int, folder: Path | None) -> Pools:
    """Return the pools of generation 0, kept in `folder` once they are made.

    Raises:
        ConfigError: instructions are to be written, and nobody is named to write them.
    """
    path = pools_file(folder, 0) if folder else None
    if path and path.exists():
        return read_json(path, Pools)
    settings = _settings(task, config)
    teacher = None
    if settings.bootstrapped:
        untouched = Candidate.of_program(task.program, config.start)
        teacher = Evaluator(task.program, untouched, task.lm, task.metric, task.inputs)
    proposer = _proposer(task, config) if settings.proposals else None
    pools = build_rich_pools(
        task.program, settings, task.train, seed, proposer=proposer, teacher=teacher, parallel=task.parallel
    )
    if path:
        write_json(path, pools)
    return pools


def next_pools(
    task: SearchTask, config: SearchConfig, seed: int, folder: Path | None, pools: Pools, best: Candidate
) -> Pools:
    """Return `pools` with what reflection on the failures of `best` adds; the same pools where it adds nothing."""
    generation = pools.generation + 1
    path = pools_file(folder, generation) if folder else None
    if path and path.exists():
        return read_json(path, Pools)
    proposer = _proposer(task, config)
    rows = task.train[: config.pools.reflection_rows]
    evaluator = Evaluator(task.program, best, task.lm, task.metric, task.inputs)
    store = folder / "reflections" / f"{generation}.jsonl" if folder else None
    records = evaluate_rows(evaluator, rows, store, parallel=task.parallel)
    written = {
        name: reflect_on_failures(
            proposer, task.program, best, name, rows, records, config.pools.reflections, seed + generation,
            known=pool.instructions,
        )
        for name, pool in pools.predictors.items()
    }  # fmt: skip
    longer = pools.extended(written)
    if longer is pools:
        # The generation counts even where nothing was found: files and studies are named by it.
        longer = pools.model_copy(update={"generation": generation})
    if path:
        write_json(path, longer)
    return longer


def warm_start(study: optuna.Study, earlier: optuna.Study, space: SearchSpace) -> None:
    """Give `study` the finished trials of the version before it, as they are, under its own longer choices."""
    known = {trial.user_attrs.get(SLOT) for trial in study.get_trials(deepcopy=False)}
    allowed = {name: _distribution(searched) for name, searched in space.parameters().items()}
    for trial in finished(earlier):
        if slot_of(trial) not in known:
            study.add_trial(
                optuna.create_trial(
                    state=trial.state,
                    value=trial.value,
                    params=trial.params,
                    distributions={name: allowed[name] for name in trial.params},
                    user_attrs=trial.user_attrs,
                    system_attrs={name: value for name, value in trial.system_attrs.items() if "constraint" in name},
                    intermediate_values=trial.intermediate_values,
                )
            )


def prompts_until(config: SearchConfig, generation: int) -> int:
    """Return how many frozen trials there are when `generation` has ended, those of earlier ones included."""
    return max(generation + 1, config.trials * (generation + 1) // config.pools.generations)


def _distribution(searched: Searched) -> BaseDistribution:
    if not isinstance(searched, NumberRange):
        return CategoricalDistribution(_choices(searched))
    if searched.whole:
        return IntDistribution(int(searched.low), int(searched.high), log=searched.log)
    return FloatDistribution(searched.low, searched.high, log=searched.log)


def _choices(values: Sequence[object]) -> tuple[str | bool | int | float | None, ...]:
    return tuple(values)  # type: ignore[arg-type]


def _settings(task: SearchTask, config: SearchConfig) -> PoolSettings:
    asked = config.pools
    chain = len(task.program.named_predictors()) > 1
    bootstrapped = (config.demo_sets if chain else 0) if asked.bootstrapped is None else asked.bootstrapped
    return PoolSettings(
        written=tuple(config.instructions), labelled=config.demo_sets, diverse=asked.diverse, typical=asked.typical,
        bootstrapped=bootstrapped, demos_per_set=config.demos_per_set, min_score=asked.min_score,
        bootstrap_rows=asked.bootstrap_rows, proposals=asked.proposals,
    )  # fmt: skip


def _proposer(task: SearchTask, config: SearchConfig) -> object:
    if task.proposer is None:
        raise ConfigError(
            f"search.pools asks for written instructions (proposals {config.pools.proposals}, generations "
            f"{config.pools.generations}), and no LM is named to write them. Set search.pools.proposer, e.g. "
            "{kind: gguf, path: larger.gguf}, or pass proposer= from Python."
        )
    return task.proposer
