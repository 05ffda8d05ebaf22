"""The prompt stages: `search` and `distill`."""

from pydantic import JsonValue

from promptopt.candidate import Candidate, load_candidate
from promptopt.distill.dataset import distilled_rows
from promptopt.distill.rollouts import Rollout, candidate_rollouts, gold_rollouts
from promptopt.distill.student import student_candidate
from promptopt.evaluation.evaluate import Evaluator
from promptopt.evaluation.throughput import Throughput
from promptopt.pipeline.context import RunContext
from promptopt.pipeline.prepare import base_gguf, read_split
from promptopt.records import DataRow
from promptopt.rundir import Stage, write_jsonl
from promptopt.study.search import SearchProgress, search
from promptopt.study.task import SearchTask, metric_identity, program_identity


def search_settings(context: RunContext) -> JsonValue:
    """Return what the stage `search` depends on."""
    config = context.config
    return {
        "search": config.search.model_dump(mode="json"),
        "lm": config.lm.model_dump(mode="json", exclude={"n_threads", "n_gpu_layers"}),
        "untouched": context.untouched.key(),
        "metric": metric_identity(context.metric),
        **program_identity(context.program),
        "seed": config.seed,
    }


def run_search(context: RunContext, stage: Stage) -> dict[str, JsonValue]:
    """Search layouts, instructions and demos on the frozen base; write search/candidate.json and trials.jsonl."""
    config = context.config

    def on_progress(progress: SearchProgress) -> None:
        best = "" if progress.best is None else f", best {progress.best:.3f}"
        text = f"trial {progress.trial}: {progress.examples}/{progress.rows} examples, {progress.mean_score:.3f}{best}"
        context.progress.step(progress.trial, progress.trials, text, progress.speed.text)

    task = SearchTask(
        context.program,
        context.lm(base_gguf(context)),
        context.metric,
        config.data.inputs,
        read_split(context, "train"),
        read_split(context, "val"),
    )
    result = search(task, config.search, config.seed, stage.path, on_progress)
    return {"best_trial": result.best_trial.number, "best_value": result.best_trial.value}


def best_candidate(context: RunContext) -> Candidate:
    """Return the winner of the search."""
    return load_candidate(context.stages["search"].path / "candidate.json")


def distill_settings(context: RunContext) -> JsonValue:
    """Return what the stage `distill` depends on."""
    return context.config.distill.model_dump(mode="json")


def run_distill(context: RunContext, stage: Stage) -> dict[str, JsonValue]:
    """Collect the teacher's accepted answers and write them as chat rows: distill/{train,val}.jsonl, student.json."""
    config = context.config.distill
    rows = read_split(context, "train")[: config.rows]
    rollouts = _rollouts(context, stage, rows)
    student = student_candidate(best_candidate(context), config.teacher)
    distilled = distilled_rows(context.program, student, rollouts, config.min_score, config.val_share)
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
        return gold_rollouts(context.program, context.metric, rows)
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
