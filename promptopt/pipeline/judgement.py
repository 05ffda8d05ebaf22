"""The stage `evaluate`: the only reader of the test split, which measures every step of the road with one evaluator."""

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from promptopt.candidate import Candidate
from promptopt.errors import StageError
from promptopt.evaluation.compare import corpus_figures, summarise
from promptopt.evaluation.evaluate import Evaluator, iterate_rows
from promptopt.evaluation.throughput import Throughput
from promptopt.pipeline.context import RunContext
from promptopt.pipeline.prepare import base_gguf
from promptopt.pipeline.prompts import student_of
from promptopt.pipeline.searching import best_candidate
from promptopt.pipeline.weights import ExportedModels, prompts_of, prove_parity
from promptopt.records import DataRow, EvaluationSummary, ExampleRecord, ParityReport, Record
from promptopt.rundir import Stage, read_json, read_jsonl, write_json


class RoadResults(Record):
    """The table of the report. `parity` is over all test prompts; None for a model that was not tuned."""

    summaries: tuple[EvaluationSummary, ...]
    parity: ParityReport | None = None


@dataclass(frozen=True)
class Column:
    """One model and prompt to measure."""

    name: str
    title: str
    gguf: Path
    candidate: Candidate


def evaluate_settings(context: RunContext) -> JsonValue:
    """Return what the stage `evaluate` depends on."""
    return {"tuned": "export" in context.stages}


def run_evaluate(context: RunContext, stage: Stage) -> dict[str, JsonValue]:
    """Measure every column on test; write evaluate/<column>.jsonl and evaluate/results.json."""
    rows = read_jsonl(context.stages["data"].path / "test.jsonl", DataRow)
    columns = _columns(context)
    summaries = []
    for number, column in enumerate(columns):
        records = _measure(context, stage, column, rows, number * len(rows), len(columns) * len(rows))
        corpus = corpus_figures(context.metric, rows, records)
        summaries.append(summarise(column.name, column.title, "test", records, context.config.seed, corpus))
    parity = None
    if "export" in context.stages:
        exported = context.stages["export"].path
        prompts = prompts_of(context, rows)
        parity = prove_parity(context, exported / "merged", exported / "tuned-f16.gguf", prompts, greedy_prompts=0)
    write_json(stage.path / "results.json", RoadResults(summaries=tuple(summaries), parity=parity))
    return {summary.name: summary.mean for summary in summaries}


def _measure(
    context: RunContext, stage: Stage, column: Column, rows: list[DataRow], before: int, total: int
) -> list[ExampleRecord]:
    """Return the column's record of every row; `before` of `total` examples were done by the columns before it."""
    evaluator = Evaluator(
        context.program, column.candidate, context.lm(column.gguf), context.metric, context.config.data.inputs
    )
    # One per column: each model has its own pace.
    throughput = Throughput()
    records: list[ExampleRecord] = []
    running = iterate_rows(evaluator, rows, stage.path / f"{column.name}.jsonl", stops=(), throughput=throughput)
    with closing(running):
        for record in running:
            records.append(record)
            done = before + len(records)
            context.progress.step(done, total, column.title, throughput.speed(total - done).text)
    return records


def road_results(context: RunContext) -> RoadResults:
    """Return what the evaluate stage measured."""
    return read_json(context.stages["evaluate"].path / "results.json", RoadResults)


def column_records(context: RunContext, column: str) -> list[ExampleRecord]:
    """Return the test records of one column, for paired comparison."""
    records = read_jsonl(context.stages["evaluate"].path / f"{column}.jsonl", ExampleRecord)
    if not records:
        raise StageError(f"There are no test records of column {column!r}. Run `promptopt evaluate` first.")
    return records


def _columns(context: RunContext) -> list[Column]:
    base = base_gguf(context)
    columns = [
        Column("base_plain", "base model, plain DSPy prompt", base, context.untouched),
        Column("base_best", "base model, best prompt found", base, best_candidate(context)),
    ]
    if "export" in context.stages:
        exported = context.stages["export"].path
        student = student_of(context)
        models = read_json(exported / "models.json", ExportedModels)
        quantization = context.config.lm.quantization
        columns += [
            Column("tuned_f16", "fine-tuned (full precision, f16)", exported / "tuned-f16.gguf", student),
            Column("tuned_gguf", f"fine-tuned GGUF ({quantization})", exported / models.deployed, student),
        ]
    return columns
