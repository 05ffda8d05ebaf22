"""The search loop: one study over layouts, instructions and demos; resumable, seeded, raced."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import optuna

from promptopt.candidate import Candidate
from promptopt.config.experiment import SearchConfig
from promptopt.errors import ConfigError, ContextLengthError, DataError, PromptRefusedError
from promptopt.evaluation.throughput import Speed, Throughput
from promptopt.pools.build import build_pools
from promptopt.pools.pool import Pools
from promptopt.records import DataRow, ExampleRecord, TrialRecord
from promptopt.rundir import read_json, write_json, write_jsonl
from promptopt.study.objective import FrozenObjective, note_result
from promptopt.study.pruning import racing_pruner
from promptopt.study.space import SearchSpace
from promptopt.study.storage import finished, next_trial, open_study, seeded_sampler, storage_errors, trial_record
from promptopt.study.task import SearchTask


@dataclass(frozen=True)
class SearchProgress:
    """What a search has come to so far; handed to `on_progress` after every example.

    Attributes:
        trial: number of the trial that runs; trials: how many there will be.
        examples: examples this trial has seen; mean_score: their mean.
        best: value of the best finished trial, None before the first.
        speed: how fast it goes, with the time left for all trials, if later ones see as many examples as those so far.
    """

    trial: int
    trials: int
    examples: int
    rows: int
    mean_score: float
    best: float | None
    speed: Speed = field(default_factory=Speed)


@dataclass(frozen=True)
class SearchResult:
    """The best candidate of a search, and all its trials."""

    best: Candidate
    best_trial: TrialRecord
    trials: tuple[TrialRecord, ...]
    pools: Pools


def search(
    task: SearchTask,
    config: SearchConfig,
    seed: int,
    folder: Path | None = None,
    on_progress: Callable[[SearchProgress], None] | None = None,
) -> SearchResult:
    """Search for the best candidate; the untouched program is trial 0.

    Args:
        folder: keeps `study.db`, `pools.json`, `evaluations/`, `trials.jsonl` and `candidate.json`; a search that was
            killed goes on from there and comes to what the unbroken one would have come to. None keeps nothing.

    Raises:
        DataError: a row lacks a field that the program or the metric needs.
        ContextLengthError, PromptRefusedError: the untouched program does not fit the model's context or its chat
            template; candidates that do not fit fail as trials.
        StageError: the study cannot be written.
    """
    rows = list(task.val if config.val_rows is None else task.val[: config.val_rows])
    _check_rows(task, rows)
    pools = _pools(task, config, seed, folder)
    space = SearchSpace.of_config(config, pools)
    study = open_study(
        f"sqlite:///{folder / 'study.db'}" if folder else None, "search", racing_pruner(config.racing, len(rows))
    )
    if not study.get_trials(deepcopy=False):
        study.enqueue_trial(space.untouched())
    store = folder / "evaluations" if folder else None
    objective = FrozenObjective(
        task.program, task.lm, task.metric, task.inputs, rows, config.racing, store, task.parallel
    )
    throughput = Throughput()
    with storage_errors(folder):
        while (done := len(finished(study))) < config.trials:
            study.sampler = seeded_sampler(seed, done, config.sampler_startup)
            _one_trial(study, objective, space, config, seed, throughput, on_progress)
            if folder:
                write_jsonl(folder / "trials.jsonl", [trial_record(trial) for trial in finished(study)])
    result = _result(study, space, pools)
    if folder:
        result.best.save(folder / "candidate.json")
    return result


def _one_trial(
    study: optuna.Study,
    objective: FrozenObjective,
    space: SearchSpace,
    config: SearchConfig,
    seed: int,
    throughput: Throughput,
    on_progress: Callable[[SearchProgress], None] | None,
) -> None:
    trial = next_trial(study)

    def reseed(parameter: str) -> None:
        study.sampler = seeded_sampler(seed, trial.number, config.sampler_startup, parameter)

    candidate = space.suggest(trial, reseed)
    best = _best_value(study)
    later = _later_examples(study, config.trials - trial.number - 1, len(objective.rows))
    seen: list[float] = []

    def on_record(record: ExampleRecord) -> None:
        seen.append(record.score or 0.0)
        if on_progress:
            rows, mean = len(objective.rows), sum(seen) / len(seen)
            speed = throughput.speed(rows - len(seen) + later)
            on_progress(SearchProgress(trial.number, config.trials, len(seen), rows, mean, best, speed))

    try:
        result = objective.run(trial, candidate, on_record, throughput)
    except (ContextLengthError, PromptRefusedError) as error:
        # The candidate does not fit this model: the trial's fault. The untouched program not fitting is the user's.
        if trial.number == 0:
            raise
        trial.set_user_attr("error", str(error))
        trial.set_user_attr("candidate", candidate.key())
        trial.set_user_attr("layout", candidate.layout.model_dump(mode="json"))
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
        return
    note_result(trial, candidate, result)
    study.tell(trial, result.value)


def _best_value(study: optuna.Study) -> float | None:
    values = [trial.value for trial in finished(study) if trial.value is not None]
    return max(values, default=None)


def _later_examples(study: optuna.Study, trials: int, rows: int) -> float:
    """Return how many examples `trials` further trials will see, if racing stops them as it stopped those so far."""
    seen = [trial.user_attrs.get("examples", 0) for trial in finished(study)]
    return trials * (sum(seen) / len(seen) if seen else rows)


def _result(study: optuna.Study, space: SearchSpace, pools: Pools) -> SearchResult:
    trials = finished(study)
    records = tuple(trial_record(trial) for trial in trials)
    complete = [record for record in records if record.state == "complete" and record.value is not None]
    # Equal scores: the cheaper prompt, then the earlier trial.
    best = min(complete, key=lambda record: (-(record.value or 0.0), record.prompt_tokens, record.number))
    frozen = next(trial for trial in trials if trial.number == best.number)
    return SearchResult(space.suggest(optuna.trial.FixedTrial(frozen.params)), best, records, pools)  # type: ignore[arg-type]


def _pools(task: SearchTask, config: SearchConfig, seed: int, folder: Path | None) -> Pools:
    path = folder / "pools.json" if folder else None
    if path and path.exists():
        return read_json(path, Pools)
    pools = build_pools(task.program, config, task.train, seed)
    if path:
        write_json(path, pools)
    return pools


def _check_rows(task: SearchTask, rows: Sequence[DataRow]) -> None:
    if not rows:
        raise DataError("There are no validation rows to search with; give at least 2.")
    predictors = task.program.named_predictors()
    if not predictors:
        raise ConfigError("The program has no predictors; promptopt optimizes programs with at least one dspy.Predict.")
    needed = [*task.inputs, *task.metric.requires()]
    for row in rows:
        missing = [name for name in needed if name not in row.fields]
        if missing:
            raise DataError(
                f"Row {row.id} lacks the field(s) {missing}, which the program or the metric {task.metric.name!r} "
                f"needs; it has {sorted(row.fields)}. Map them under data.fields."
            )
