"""A search from its task to its result: one study over prompts, and over weights where they can be tuned."""

import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import optuna
from pydantic import JsonValue

from promptopt.candidate import Candidate
from promptopt.config.experiment import SearchConfig
from promptopt.config.joint import HalvingConfig
from promptopt.config.recipe import TrainingRecipe
from promptopt.errors import ConfigError, DataError, StageError
from promptopt.pools.pool import Pools
from promptopt.records import DataRow, Record, TrialRecord
from promptopt.rundir import write_json, write_jsonl
from promptopt.study.artifacts import Artifacts
from promptopt.study.generations import (
    first_pools,
    next_pools,
    pools_file,
    prompts_until,
    version_name,
    warm_start,
)
from promptopt.study.halving import StudyPruner
from promptopt.study.objective import CandidateObjective
from promptopt.study.phases import Plan, ranked
from promptopt.study.pruning import racing_pruner
from promptopt.study.runner import SearchProgress, StudyRunner
from promptopt.study.space import SearchSpace
from promptopt.study.storage import claim_identity, close_study, open_study, storage_errors
from promptopt.study.task import SearchTask
from promptopt.study.trials import fill_slots
from promptopt.study.tuner import Tuner

TRIALS_FOLDER = "trials"
IMPORTANCES = "importances.json"
_LEAST_FOR_IMPORTANCE = 10
_REFLECTION_S = 3600.0


class TunedWinner(Record):
    """The best trial on tuned weights.

    Attributes:
        candidate: what the tuned model is asked with.
        trial: its slot; weights_of: the slot of the trial that trained the weights; its files lie in
            `trials/<weights_of>/`.
    """

    candidate: Candidate
    recipe: TrainingRecipe
    trial: int
    weights_of: int
    value: float


@dataclass(frozen=True)
class SearchResult:
    """The best candidate of a search, and all its trials.

    Attributes:
        best: the best candidate on frozen weights.
        tuned: the best trial on tuned weights; None where none was tuned.
    """

    best: Candidate
    best_trial: TrialRecord
    trials: tuple[TrialRecord, ...]
    pools: Pools
    tuned: TunedWinner | None = None


def search(
    task: SearchTask,
    config: SearchConfig,
    seed: int,
    folder: Path | None = None,
    on_progress: Callable[[SearchProgress], None] | None = None,
    *,
    study_name: str = "search",
) -> SearchResult:
    """Search for the best candidate, and for the best weights if `task.training` says how; trial 0 is untouched.

    Args:
        folder: keeps `study.db`, `pools.json`, `evaluations/`, `trials/`, `trials.jsonl`, `candidate.json` and
            `tuned.json`; a search that was killed goes on from there and comes to what the unbroken one would have come
            to. None keeps nothing.
        study_name: under which the study stands in `config.storage`.

    Raises:
        DataError: a row lacks a field that the program or the metric needs.
        ContextLengthError, PromptRefusedError: the untouched program does not fit the model's context or its chat
            template; candidates that do not fit fail as trials.
        ConfigError: the space is wrong.
        StageError: the study cannot be written, another promptopt wrote it, no trial meets the constraints, or every
            training failed.
    """
    _check_shared(task, config)
    with ExitStack() as stack:
        if folder is None and task.training is not None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="promptopt-")))
        _check_rows(task, _rows(task, config))
        pools = first_pools(task, config, seed, folder)
        before: StudyRunner | None = None
        with storage_errors(config.storage or folder):
            for generation in range(config.pools.generations):
                if before is not None:
                    best = _candidate(before, _to_improve(before))
                    pools = next_pools(task, config, seed, folder, pools, best)
                version = _Version(study_name, generation, join=False)
                runner = _prepared(task, config, seed, folder, pools, version, stack, on_progress)
                if before is not None:
                    warm_start(runner.study, before.study, runner.space)
                if runner.artifacts is not None:
                    runner.artifacts.keep_pools(runner.study, pools)
                fill_slots(runner.study, runner.plan.trials, most=1 if runner.alone else None)
                if folder:
                    runner.on_trials = partial(write_jsonl, folder / "trials.jsonl")
                runner.run()
                before = runner
        result = _result(runner, pools)
        if folder:
            result.best.save(folder / "candidate.json")
            write_json(folder / IMPORTANCES, _importances(runner.study))
            if result.tuned is not None:
                write_json(folder / "tuned.json", result.tuned)
        return result


def work(
    task: SearchTask,
    config: SearchConfig,
    seed: int,
    folder: Path,
    on_progress: Callable[[SearchProgress], None] | None = None,
    *,
    study_name: str = "search",
) -> int:
    """Join a study that `search` started elsewhere, in `config.storage`; return how many trials were run here.

    Raises:
        ConfigError: there is no storage to join.
        StageError: there is no such study, or it is about something else; and what `search` raises.
    """
    if config.storage is None:
        raise ConfigError("A worker needs the study's storage: --storage postgresql://user@host/database.")
    _check_shared(task, config)
    _check_rows(task, _rows(task, config))
    done = 0
    with ExitStack() as stack, storage_errors(config.storage):
        artifacts = _artifacts(config, folder)
        for generation in range(config.pools.generations):
            version = _Version(study_name, generation, join=True)
            study = _opened(task, config, version, stack, None)
            pools = artifacts.fetch_pools(study, pools_file(folder, generation)) if artifacts else None
            pools = pools or first_pools(task, config, seed, folder)
            done += _prepared(task, config, seed, folder, pools, version, stack, on_progress).run()
    return done


@dataclass(frozen=True)
class _Version:
    """Which study of a search: `join` takes it as another process made it."""

    study_name: str
    generation: int
    join: bool


def _prepared(
    task: SearchTask,
    config: SearchConfig,
    seed: int,
    folder: Path | None,
    pools: Pools,
    version: _Version,
    stack: ExitStack,
    on_progress: Callable[[SearchProgress], None] | None,
) -> StudyRunner:
    rows = _rows(task, config)
    last = version.generation == config.pools.generations - 1
    weights = config.weights if task.training is not None else None
    space = SearchSpace.of_config(config, pools, task.training.recipe if task.training and weights else None)
    study = _opened(task, config, version, stack, folder)
    identity = {"space": space.identity(), "pools": pools.key(), "seed": str(seed)}
    claim_identity(study, identity, join=version.join)
    store = folder / "evaluations" if folder else None
    objective = CandidateObjective(task.program, task.metric, task.inputs, rows, config.racing, store, task.parallel)
    tuner = None
    if weights is not None and task.training is not None and folder is not None and last:
        tuner = Tuner(task, task.training, objective, weights.halving, folder / TRIALS_FOLDER, seed)
        stack.callback(tuner.close)
    plan = Plan.of_config(config, tuner is not None, prompts_until(config, version.generation))
    return StudyRunner(
        study, plan, space, task, objective, config, seed, tuner, _artifacts(config, folder),
        alone=config.storage is None, leads=not version.join, on_progress=on_progress,
    )  # fmt: skip


def _opened(
    task: SearchTask, config: SearchConfig, version: _Version, stack: ExitStack, folder: Path | None
) -> optuna.Study:
    weights = config.weights if task.training is not None else None
    halving = weights.halving if weights else HalvingConfig(enabled=False)
    study = open_study(
        config.storage or (f"sqlite:///{folder / 'study.db'}" if folder else None),
        version_name(version.study_name, version.generation),
        StudyPruner(racing_pruner(config.racing, len(_rows(task, config))), halving),
        heartbeat_s=config.heartbeat_s if config.storage is not None else None,
        join=version.join,
        # A later version appears when the leader has thought about the one before.
        patience_s=_REFLECTION_S if version.join and version.generation > 0 else 0.0,
    )
    stack.callback(close_study, study)
    return study


def _artifacts(config: SearchConfig, folder: Path | None) -> Artifacts | None:
    if config.storage is None or folder is None:
        return None
    return Artifacts(config.artifacts or folder / "artifacts")


def _rows(task: SearchTask, config: SearchConfig) -> list[DataRow]:
    return list(task.val if config.val_rows is None else task.val[: config.val_rows])


def _result(runner: StudyRunner, pools: Pools) -> SearchResult:
    records = tuple(runner.records())
    best = _best_frozen(runner)
    tuned = ranked([record for record in records if record.kind == "tuned" and record.feasible])
    trained = [record for record in records if record.kind == "tuned"]
    if trained and all(record.state == "failed" for record in trained):
        raise StageError(f"Every training of the study failed. The first: {trained[0].error}")
    winner = _winner(runner, tuned[0]) if tuned else None
    return SearchResult(_candidate(runner, best), best, records, pools, winner)


def _best_frozen(runner: StudyRunner) -> TrialRecord:
    records = runner.records()
    frozen = ranked([record for record in records if record.kind == "frozen" and record.feasible])
    if not frozen:
        raise StageError(_no_winner(records, runner.config))
    return frozen[0]


def _importances(study: optuna.Study) -> dict[str, JsonValue]:
    """Return parameter -> share of the score's variance (conditional PED-ANOVA); empty where trials are too few."""
    states = (optuna.trial.TrialState.COMPLETE,)
    if len(study.get_trials(deepcopy=False, states=states)) < _LEAST_FOR_IMPORTANCE:
        return {}
    try:
        return {name: float(share) for name, share in optuna.importance.get_param_importances(study).items()}
    except (RuntimeError, ValueError):
        return {}


def _winner(runner: StudyRunner, record: TrialRecord) -> TunedWinner:
    slot = record.number if record.weights_of is None else record.weights_of
    trained = runner.fetch_weights(next(trial for trial in runner.records() if trial.number == slot))
    asked = _candidate(runner, record)
    student = runner.tuner.student(asked, trained.recipe) if runner.tuner is not None else asked
    return TunedWinner(
        candidate=student, recipe=trained.recipe, trial=record.number, weights_of=slot, value=record.value or 0.0
    )


def _candidate(runner: StudyRunner, record: TrialRecord) -> Candidate:
    return runner.space.suggest(optuna.trial.FixedTrial(record.params)).candidate  # type: ignore[arg-type]


def _to_improve(runner: StudyRunner) -> TrialRecord:
    """Return whose failures are reflected on: the best trial, also where none meets the constraints yet."""
    whole = ranked(runner.records())
    return next((record for record in whole if record.feasible), whole[0]) if whole else _best_frozen(runner)


def _no_winner(records: Sequence[TrialRecord], config: SearchConfig) -> str:
    limits = config.constraints.limits
    if not limits:
        return "No trial on frozen weights was finished; the errors stand in trials.jsonl."
    whole = [record for record in records if record.state == "complete" and record.unmet]
    closest = min(whole, key=lambda record: sum(record.unmet.values()), default=None)
    said = f" The closest, trial {closest.number}, is beyond by {closest.unmet}." if closest else ""
    return f"No trial meets search.constraints {limits}.{said} Loosen a limit, or search cheaper layouts."


def _check_shared(task: SearchTask, config: SearchConfig) -> None:
    """Pass if what workers have to share has a place that all of them see."""
    trains = config.weights is not None and task.training is not None
    writes = config.pools.generations > 1 or config.pools.proposals > 0
    if config.storage is not None and config.artifacts is None and (trains or writes):
        what = "LoRA weights" if trains else "pools that an LM writes"
        raise ConfigError(
            f"A study that several machines share has {what} to hand on, and search.artifacts names no place for them. "
            "Give --artifacts: a folder that all of them see, or s3://bucket/prefix."
        )


def _check_rows(task: SearchTask, rows: Sequence[DataRow]) -> None:
    if not rows:
        raise DataError("There are no validation rows to search with; give at least 2.")
    predictors = task.program.named_predictors()
    if not predictors:
        raise ConfigError("The program has no predictors; promptopt optimizes programs with at least one dspy.Predict.")
    for row in rows:
        missing = [name for name in task.inputs if name not in row.fields] + task.metric.lacking(row.fields)
        if missing:
            raise DataError(
                f"Row {row.id} lacks the field(s) {missing}, which the program or the metric {task.metric.name!r} "
                f"needs; it has {sorted(row.fields)}. Map them under data.fields."
            )
