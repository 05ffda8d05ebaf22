"""The final choice of the export: every quantization is scored on val, and the deployed file is chosen by a rule."""

from collections.abc import Sequence
from pathlib import Path

from promptopt.evaluation.model_table import MeasuredModel
from promptopt.pipeline.context import RunContext
from promptopt.pipeline.measuring import (
    finished_records,
    known_cost,
    measured_cost,
    measured_model,
    measured_records,
)
from promptopt.pipeline.prepare import read_split
from promptopt.pipeline.prompts import student_of
from promptopt.records import ExampleRecord, GgufModel, Quantization
from promptopt.rundir import Stage

FOLDER = "scores"


def wanted_quantizations(context: RunContext) -> list[Quantization]:
    """Return the quantizations to make beside f16, the named deployed one first."""
    config = context.config
    deploy = config.export.deploy
    named = config.lm.quantization if deploy is None or deploy == "auto" else deploy
    wanted: list[Quantization] = [named, *config.export.quantizations]
    return [quantization for quantization in dict.fromkeys(wanted) if quantization != "f16"]


def score_quantizations(context: RunContext, stage: Stage, ggufs: Sequence[GgufModel]) -> tuple[MeasuredModel, ...]:
    """Measure every file on `export.score_rows` rows of val, as the student is asked; kept example by example.

    Args:
        ggufs: f16 first: the others' differences are to it.
    """
    rows = read_split(context, "val")[: context.config.export.score_rows]
    if not rows:
        return ()
    student = student_of(context)
    first: list[ExampleRecord] = []
    measured = []
    for number, gguf in enumerate(ggufs):
        store = stage.path / FOLDER / f"{gguf.quantization}.jsonl"
        kept = store.with_suffix(".cost.json")
        records, cost = finished_records(rows, store), known_cost(kept)
        if records is None:
            lm = context.lm(Path(gguf.path))
            before = lm.chat.stats()
            title = f"scoring {gguf.quantization} on val"
            records = measured_records(
                context, lm, student, rows, store, title, number * len(rows), len(ggufs) * len(rows)
            )
            cost = measured_cost(lm, kept, before)
        first = first or records
        title = Path(gguf.path).name
        measured.append(measured_model(context, Path(gguf.path), title, "val", records, first, cost, ""))
    return tuple(measured)


def deployed_quantization(
    context: RunContext, ggufs: Sequence[GgufModel], scores: Sequence[MeasuredModel]
) -> Quantization:
    """Return the quantization to deploy: the named one, or with `export.deploy: auto` the choice of `smallest_good`."""
    config = context.config
    if config.export.deploy != "auto":
        return config.export.deploy or config.lm.quantization
    return smallest_good(ggufs, scores, config.export.max_loss)


def smallest_good(ggufs: Sequence[GgufModel], scores: Sequence[MeasuredModel], max_loss: float) -> Quantization:
    """Return the smallest file that loses at most `max_loss` against the first one (f16), by the mean difference.

    The mean, and not the interval's lower end: on a hundred rows that end is far below any margin worth naming, and
    the rule would always keep f16. A loss that the interval shows to be real is none the less taken for one.
    """
    good = [
        gguf
        for gguf, score in zip(ggufs, scores, strict=True)
        if score.difference is None or (score.difference.mean >= -max_loss and score.difference.high >= 0)
    ]
    return min(good, key=lambda gguf: gguf.size_bytes).quantization
