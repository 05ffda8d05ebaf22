"""The stage `evaluate`: the only reader of the test split, which measures every step of the road with one evaluator."""

from dataclasses import dataclass
from pathlib import Path

from pydantic import Field, JsonValue

from promptopt.candidate import Candidate
from promptopt.errors import StageError
from promptopt.evaluation.compare import corpus_figures, summarise
from promptopt.evaluation.mean_opinion import opinion_figures
from promptopt.evaluation.report_data import DataOverview
from promptopt.evaluation.slices import slice_labels
from promptopt.pipeline.context import RunContext
from promptopt.pipeline.measuring import measured_records
from promptopt.pipeline.openings import open_test_split
from promptopt.pipeline.prepare import base_gguf
from promptopt.pipeline.prompts import student_of
from promptopt.pipeline.searching import best_candidate
from promptopt.pipeline.weights import ExportedModels, prompts_of, prove_parity
from promptopt.records import DataRow, EvaluationSummary, ExampleRecord, ParityReport, Record
from promptopt.rundir import Stage, hash_inputs, read_json, read_jsonl, write_json

MEASURED = ("search", "export")
"""The stages whose outcome is measured on test."""


class RoadResults(Record):
    """The table of the report.

    Attributes:
        parity: over all test prompts; None for a model that was not tuned.
        slices: slice name -> example id -> label.
    """

    summaries: tuple[EvaluationSummary, ...]
    parity: ParityReport | None = None
    slices: dict[str, dict[str, str]] = Field(default_factory=dict)


@dataclass(frozen=True)
class Column:
    """One model and prompt to measure."""

    name: str
    title: str
    gguf: Path
    candidate: Candidate


def evaluate_settings(context: RunContext) -> JsonValue:
    """Return what the stage `evaluate` depends on."""
    return {"tuned": "export" in context.stages, "slices": list(context.config.report.slices)}


def read_test(context: RunContext, measured: JsonValue) -> list[DataRow]:
    """Return the rows of test, for the last word: this stage, and `promptopt compare --split test`.

    Args:
        measured: what is measured on them; see `openings`.

    Raises:
        StageError: something else was measured on them before, and nobody said why they should be read again.
    """
    data = context.stages["data"]
    test = read_json(data.path / "overview.json", DataOverview).fingerprints["test"]
    open_test_split(context.run.path, hash_inputs(measured), test, context.open_test_again)
    return read_jsonl(data.path / "test.jsonl", DataRow)


def run_evaluate(context: RunContext, stage: Stage) -> dict[str, JsonValue]:
    """Measure every column on test; write evaluate/<column>.jsonl and evaluate/results.json."""
    rows = read_test(context, {name: context.stages[name].inputs for name in MEASURED if name in context.stages})
    slices = slice_labels(rows, context.config.data.inputs, context.config.report.slices)
    columns = _columns(context)
    summaries = []
    for number, column in enumerate(columns):
        records = measured_records(
            context, context.lm(column.gguf), column.candidate, rows, stage.path / f"{column.name}.jsonl",
            column.title, number * len(rows), len(columns) * len(rows),
        )  # fmt: skip
        corpus = {**corpus_figures(context.metric, rows, records), **opinion_figures(context.metric, records)}
        summaries.append(summarise(column.name, column.title, "test", records, context.config.seed, corpus))
    parity = None
    if "export" in context.stages:
        exported = context.stages["export"].path
        prompts = prompts_of(context, rows)
        parity = prove_parity(context, exported / "merged", exported / "tuned-f16.gguf", prompts, greedy_prompts=0)
    write_json(stage.path / "results.json", RoadResults(summaries=tuple(summaries), parity=parity, slices=slices))
    return {summary.name: summary.mean for summary in summaries}


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
        quantization = Path(models.deployed).stem.removeprefix("tuned-")
        columns += [
            Column("tuned_f16", "fine-tuned (full precision, f16)", exported / "tuned-f16.gguf", student),
            Column("tuned_gguf", f"fine-tuned GGUF ({quantization})", exported / models.deployed, student),
        ]
    return columns
