"""The stage `distill`: what the student is taught, and under which prompt."""

from pathlib import Path
from typing import Literal

from pydantic import JsonValue

from promptopt.candidate import Candidate, load_candidate
from promptopt.config.training import CausalStage, RowsStage
from promptopt.distill.rollouts import Rollout, candidate_rollouts, gold_rollouts
from promptopt.distill.student import student_candidate
from promptopt.evaluation.evaluate import Evaluator
from promptopt.evaluation.throughput import Throughput
from promptopt.pipeline.context import RunContext
from promptopt.pipeline.prepare import base_gguf, read_split
from promptopt.pipeline.searching import best_candidate, trained_folder, tuned_winner
from promptopt.pipeline.training import (
    rows_folder,
    stage_rows,
    teacher_of,
    training_inputs,
    view_teacher,
    wanted_rows,
    write_documents,
)
from promptopt.records import DataRow, TrainingRow
from promptopt.rundir import Stage, read_jsonl, write_jsonl

_OF_THE_RECIPE = ("student_instructions", "student_demos", "student_reasoning", "row_share", "min_score")


def distill_settings(context: RunContext) -> JsonValue:
    """Return what the stage `distill` depends on."""
    recipe = context.config.finetune
    seen = {name: getattr(recipe, name) for name in _OF_THE_RECIPE}
    return {"distill": context.config.distill.model_dump(mode="json"), "student": seen, **training_inputs(context)}


def run_distill(context: RunContext, stage: Stage) -> dict[str, JsonValue]:
    """Collect the teacher's accepted answers and write them as chat rows: distill/{train,val}.jsonl, student.json.

    Where the study has tuned weights, these are the rows of the trial that won.
    """
    winner = tuned_winner(context)
    if winner is not None:
        trained = trained_folder(context, winner)
        counts: dict[str, JsonValue] = {}
        for name in ("train", "val"):
            kept = read_jsonl(trained / f"{name}.jsonl", TrainingRow)
            write_jsonl(stage.path / f"{name}.jsonl", kept)
            counts[name] = len(kept)
        winner.candidate.save(stage.path / "student.json")
        return {**counts, "trial": winner.trial, "weights_of": winner.weights_of}
    best = best_candidate(context)
    student = student_candidate(best, view_teacher(context), context.config.finetune)
    stages = context.config.training_stages
    written: list[dict[str, JsonValue]] = []
    for number, training in enumerate(stages):
        folder = rows_folder(stage.path, number, len(stages), training.kind)
        if isinstance(training, CausalStage):
            written.append({"kind": training.kind, **write_documents(training, folder)})
        else:
            written.append({"kind": training.kind, **_write_rows(context, stage, training, best, student, folder)})
    student.save(stage.path / "student.json")
    return written[0] if len(stages) == 1 else {"stages": list[JsonValue](written)}


def _write_rows(
    context: RunContext, stage: Stage, training: RowsStage, best: Candidate, student: Candidate, folder: Path
) -> dict[str, JsonValue]:
    rows = wanted_rows(context, training, read_split(context, "train"))
    rollouts = _rollouts(context, stage, rows, teacher_of(context, training))
    distilled = stage_rows(context, training, best, student, rollouts)
    write_jsonl(folder / "rollouts.jsonl", rollouts)
    write_jsonl(folder / "train.jsonl", distilled.train)
    write_jsonl(folder / "val.jsonl", distilled.val)
    return {
        "train": len(distilled.train),
        "val": len(distilled.val),
        "rejected": distilled.rejected,
        "shown_as_demos": distilled.shown,
    }


def student_of(context: RunContext) -> Candidate:
    """Return the candidate that the tuned model was trained under."""
    return load_candidate(context.stages["distill"].path / "student.json")


def _rollouts(
    context: RunContext, stage: Stage, rows: list[DataRow], teacher: Literal["gold", "candidate"]
) -> list[Rollout]:
    if teacher == "gold":
        return gold_rollouts(context.program, context.metric, rows, context.config.data.inputs)
    lm = context.lm(base_gguf(context))
    evaluator = Evaluator(context.program, best_candidate(context), lm, context.metric, context.config.data.inputs)
    throughput = Throughput()
    accepted = 0
    asked = 0

    def on_rollout(rollout: Rollout) -> None:
        nonlocal accepted, asked
        asked += 1
        accepted += (rollout.score or 0.0) >= context.config.distill.min_score
        speed = throughput.speed(len(rows) - asked).text
        context.progress.step(asked, len(rows), f"{accepted} answers accepted", speed)

    return candidate_rollouts(evaluator, rows, stage.path / "teacher.jsonl", on_rollout, throughput=throughput)
