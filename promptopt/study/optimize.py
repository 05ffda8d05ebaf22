"""`promptopt.optimize`: the search as one call from Python."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import dspy

from promptopt.candidate import Candidate
from promptopt.config.experiment import SearchConfig
from promptopt.data.loaders import row_id
from promptopt.errors import ConfigError, DataError
from promptopt.evaluation.in_order import checked_parallel
from promptopt.metrics.base import Metric
from promptopt.metrics.plain import as_metric
from promptopt.records import DataRow, TrialRecord
from promptopt.rundir import RunDir
from promptopt.study.search import SearchProgress, search
from promptopt.study.task import SearchTask


@dataclass(frozen=True)
class OptimizeResult:
    """What `optimize` found.

    Attributes:
        best: the winning candidate; `best.apply(program)`, `best.save(path)`.
        best_score, baseline_score: mean validation scores of the winner and of the untouched program. The winner was
            chosen on these rows: measure it on others before you believe the difference.
    """

    best: Candidate
    best_score: float
    baseline_score: float
    trials: tuple[TrialRecord, ...]


def optimize(
    program: dspy.Module,
    *,
    lm: dspy.BaseLM,
    metric: Metric | Callable[..., float | bool],
    train: Sequence[dspy.Example],
    val: Sequence[dspy.Example],
    trials: int = 40,
    seed: int = 0,
    config: SearchConfig | None = None,
    folder: str | Path | None = None,
    on_progress: Callable[[SearchProgress], None] | None = None,
    parallel: int | None = None,
) -> OptimizeResult:
    """Find the best layout, instructions and demos for `program` on `lm`.

    Args:
        program: any dspy.Module; left unchanged.
        lm: `promptopt.LlamaCpp` or any other dspy.LM.
        metric: a promptopt Metric, or a DSPy metric `(example, prediction, trace=None) -> float in [0, 1] or bool`.
        train: examples demos are drawn from.
        val: examples candidates are scored on; each knows its inputs (`Example.with_inputs`).
        trials: how many candidates, the untouched program included; overrides `config.trials`.
        config: everything else of the search; see SearchConfig.
        folder: keeps the study in `folder/search`, so that a killed search goes on; a study of another task is set
            aside. None keeps nothing.
        parallel: examples whose programs run at once, each in a thread with its own copy of the program; None = as
            many as `lm.parallel` says, one for an LM that does not say (a server). The result does not depend on it.

    Raises:
        ConfigError: the examples name no inputs, or `trials` or `parallel` is not positive.
        DataError: there are no validation examples, or one lacks a field.
    """
    inputs = _inputs_of(val)
    if parallel is not None:
        checked_parallel(parallel)
    task = SearchTask(program, lm, as_metric(metric), inputs, _rows(train, inputs), _rows(val, inputs), parallel)
    settings = (config or SearchConfig()).model_copy(update={"trials": trials})
    if trials < 1:
        raise ConfigError(f"trials is {trials}; at least 1 is needed (trial 0 is the untouched program).")
    if folder is None:
        result = search(task, settings, seed, None, on_progress)
    else:
        run = RunDir(Path(folder))
        with run.lock():
            untouched = Candidate.of_program(program, settings.start).key()
            key = {"search": settings.model_dump(mode="json"), "seed": seed, "untouched": untouched, **task.identity()}
            result = search(task, settings, seed, run.stage("search", key).path, on_progress)
    baseline = result.trials[0].mean_score
    return OptimizeResult(
        result.best, result.best_trial.value or 0.0, 0.0 if baseline is None else baseline, result.trials
    )


def _inputs_of(examples: Sequence[dspy.Example]) -> tuple[str, ...]:
    if not examples:
        raise ConfigError("`val` is empty; give at least 2 examples to score candidates on.")
    try:
        return tuple(examples[0].inputs().keys())
    except ValueError as error:
        raise ConfigError(
            "The examples do not say which fields are inputs. Call `example.with_inputs('document', 'question')`."
        ) from error


def _rows(examples: Sequence[dspy.Example], inputs: Sequence[str]) -> list[DataRow]:
    rows = []
    for example in examples:
        fields = dict(example.toDict())
        missing = [name for name in inputs if name not in fields]
        if missing:
            raise DataError(f"An example lacks the input field(s) {missing}; it has {sorted(fields)}.")
        rows.append(DataRow(id=row_id({name: fields[name] for name in inputs}), fields=fields))
    return rows
