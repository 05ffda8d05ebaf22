"""`promptopt matrix`: the test answers that finished runs have kept, scored by any metrics, in one table.

With and without retrieval, or one model and another, are experiments of their own; this puts their runs side by side.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from pydantic import JsonValue, ValidationError

from promptopt.config.experiment import ExperimentConfig
from promptopt.data.splits import fingerprint
from promptopt.errors import ConfigError, StageError
from promptopt.evaluation.compare import corpus_figures, summarise
from promptopt.evaluation.matrix import Matrix, MatrixRow, render_matrix
from promptopt.metrics.base import Metric
from promptopt.metrics.registry import get_metric
from promptopt.pipeline.context import RunContext
from promptopt.pipeline.judgement import column_records, read_test, road_results
from promptopt.pipeline.progress import Silent
from promptopt.records import DataRow, EvaluationSummary, ExampleRecord, Outcome
from promptopt.rundir import RunDir, Stage, write_json, write_text


def write_matrix(runs: Sequence[Path], metrics: Sequence[str], folder: Path) -> Matrix:
    """Score the kept test answers of `runs` by `metrics`; write matrix.md and matrix.json into `folder`.

    Test rows are read as part of what was measured on them: no second opening (docs/decisions/0007).

    Args:
        runs: folders of runs whose stage `evaluate` is finished.
        metrics: names, or import paths `module:name`.

    Raises:
        ConfigError: no run, no metric, the same one twice, an unknown metric, or a folder that is no run.
        StageError: a run has not been evaluated, or its rows are not those that were.
        DataError: the rows of a run lack what a metric needs.
    """
    for what, named in (("run", [str(run.resolve()) for run in runs]), ("metric", list(metrics))):
        if not named or len(set(named)) != len(named):
            raise ConfigError(f"The {what}s are {named}; name at least one, and each once.")
    scorers = [get_metric(name) for name in metrics]
    rows = tuple(row for run in runs for row in _rows_of(run, scorers))
    matrix = Matrix(metrics=tuple(scorer.name for scorer in scorers), rows=rows)
    write_json(folder / "matrix.json", matrix)
    write_text(folder / "matrix.md", render_matrix(matrix))
    return matrix


def _rows_of(run: Path, metrics: Sequence[Metric]) -> list[MatrixRow]:
    context = RunContext(_config(run), RunDir(run), Silent())
    after: dict[str, dict[str, JsonValue]] = {}
    for name in ("data", "search", "evaluate"):
        context.stages[name], after[name] = _finished(run, name)
    # Before a test row is read: reading rows that were not measured would be an opening of its own.
    if (after["search"].get("data"), after["evaluate"].get("search")) != (
        context.stages["data"].inputs,
        context.stages["search"].inputs,
    ):
        raise StageError(
            f"{run / 'evaluate'} was made before the data or the search that {run} now holds. Run `promptopt evaluate` "
            "with the run's file."
        )
    measured: JsonValue = dict(after["evaluate"])
    with context.run.lock():
        test = read_test(context, measured)
    rows = []
    for summary in road_results(context).summaries:
        records = column_records(context, summary.name)
        if {record.example_id for record in records} != {row.id for row in test}:
            raise StageError(f"{run / 'evaluate'} lacks records of column {summary.name!r}; it was changed by hand.")
        scores = {metric.name: _rescored(metric, summary, test, records, context.config.seed) for metric in metrics}
        rows.append(
            MatrixRow(
                run=context.config.name,
                program=context.config.program,
                title=summary.title,
                fingerprint=fingerprint(test),
                scores=scores,
            )
        )
    return rows


def _rescored(
    metric: Metric, column: EvaluationSummary, test: Sequence[DataRow], records: Sequence[ExampleRecord], seed: int
) -> EvaluationSummary:
    fields = {row.id: row.fields for row in test}
    scored = []
    for record in records:
        if record.outcome is not Outcome.PARSE_FAILED:
            score = metric.score(fields[record.example_id], record.prediction)
            outcome = Outcome.UNSCORED if score.value is None else Outcome.SCORED
            change = {"outcome": outcome, "score": score.value, "details": dict(score.details)}
            record = record.model_copy(update=change)
        scored.append(record)
    corpus = corpus_figures(metric, test, scored)
    return summarise(column.name, column.title, column.split, scored, seed, corpus)


def _config(run: Path) -> ExperimentConfig:
    try:
        return ExperimentConfig.model_validate_json((run / "experiment.json").read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{run} is no folder of a run: experiment.json cannot be read ({error.strerror}).") from error
    except ValidationError as error:
        raise ConfigError(
            f"{run / 'experiment.json'} is of another version of promptopt ({str(error).splitlines()[0]})."
        ) from error


def _finished(run: Path, name: str) -> tuple[Stage, dict[str, JsonValue]]:
    """Return a stage as it stands in the folder, and the stages it was made after, with their keys."""
    try:
        inputs = json.loads((run / name / "inputs.json").read_text(encoding="utf-8"))
        stage, after = Stage(run / name, inputs["inputs"]), inputs["of"]["after"]
    except (OSError, ValueError, KeyError, TypeError):
        stage, after = Stage(run / name, ""), {}
    if not stage.complete or not stage.inputs:
        raise StageError(f"Stage {name!r} has not finished in {run}. `promptopt run` with the run's file finishes it.")
    return stage, after
