"""The stage `distill`: what the student is taught, and under which prompt."""

from pydantic import JsonValue

from promptopt.candidate import Candidate, load_candidate
from promptopt.distill.dataset import distilled_rows
from promptopt.distill.rollouts import Rollout, candidate_rollouts, gold_rollouts
from promptopt.distill.student import student_candidate
from promptopt.evaluation.evaluate import Evaluator
from promptopt.evaluation.throughput import Throughput
from promptopt.pipeline.context import RunContext
from promptopt.pipeline.prepare import base_gguf, read_split
from promptopt.pipeline.searching import best_candidate, trained_folder, tuned_winner
from promptopt.records import DataRow, TrainingRow
from promptopt.rundir import Stage, read_jsonl, write_jsonl

_OF_THE_RECIPE = ("student_instructions", "student_demos", "student_reasoning", "row_share", "min_score")


def distill_settings(context: RunContext) -> JsonValue:
    """Return what the stage `distill` depends on."""
    recipe = context.config.finetune
    seen = {name: getattr(recipe, name) for name in _OF_THE_RECIPE}
    return {"distill": context.config.distill.model_dump(mode="json"), "student": seen}


def run_distill(context: RunContext, stage: Stage) -> dict[str, JsonValue]:
    """Collect the teacher's accepted answers and write them as chat rows: distill/{train,val}.jsonl, student.json.

    Where the study has tuned weights, these are the rows of the trial that won.
    """
    config = context.config.distill
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
    rows = read_split(context, "train")[: config.rows]
    rollouts = _rollouts(context, stage, rows)
    recipe = context.config.finetune
    student = student_candidate(best_candidate(context), config.teacher, recipe)
    least = config.min_score if recipe.min_score is None else recipe.min_score
    distilled = distilled_rows(context.program, student, rollouts, least, config.val_share, recipe.row_share)
    write_jsonl(stage.path / "rollouts.jsonl", rollouts)
    write_jsonl(stage.path / "train.jsonl", distilled.train)
    write_jsonl(stage.path / "val.jsonl", distilled.val)
    student.save(stage.path / "student.json")
    return {
        "train": len(distilled.train),
        "val": len(distilled.val),
        "rejected": distilled.rejected,
        "shown_as_demos": distilled.shown,
    }


def student_of(context: RunContext) -> Candidate:
    """Return the candidate that the tuned model was trained under."""
    return load_candidate(context.stages["distill"].path / "student.json")


def _rollouts(context: RunContext, stage: Stage, rows: list[DataRow]) -> list[Rollout]:
    if context.config.distill.teacher == "gold":
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
