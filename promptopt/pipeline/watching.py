"""The task metric of a training at each evaluation, measured as the study does: LoRA weights on the quantized base."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from promptopt.config.recipe import TrainingRecipe
from promptopt.errors import ExportError
from promptopt.evaluation.evaluate import Evaluator, evaluate_rows
from promptopt.finetune.rungs import Judgement, RungPoint
from promptopt.pipeline.context import RunContext
from promptopt.pipeline.prepare import base_gguf, read_split
from promptopt.pipeline.prompts import student_of

WATCHED = "watched"


def metric_watch(context: RunContext, recipe: TrainingRecipe, folder: Path) -> Callable[[RungPoint], Judgement] | None:
    """Return what measures a checkpoint on the first `watched_rows` validation rows; None where that is not wanted.

    Answers are kept in `folder`, one file per step.

    The rows are the same every time, and none that was answered before a kill is answered again. The model is loaded
    for the occasion: a training must fit into memory beside it, but it takes none in between.
    """
    rows = read_split(context, "val")[: recipe.watched_rows]
    if not rows:
        return None
    student = student_of(context)

    def measure(point: RungPoint) -> Judgement:
        from promptopt.export.lora_gguf import convert_lora

        lora = folder / f"{point.step}.gguf"
        lora.parent.mkdir(parents=True, exist_ok=True)
        try:
            convert_lora(point.lora_dir, context.hf_dir, lora)
        except ExportError as error:
            if recipe.best_by == "metric":
                raise
            context.progress.say(f"The task metric is not measured while training: {error}")
            return Judgement()
        try:
            lm = context.lm(base_gguf(context)).with_lora(lora)
            evaluator = Evaluator(context.program, student, lm, context.metric, context.config.data.inputs)
            records = evaluate_rows(evaluator, rows, folder / f"{point.step}.jsonl")
        finally:
            context.close_lms()
            with suppress(OSError):
                lora.unlink()
        scores = [record.score for record in records if record.score is not None]
        return Judgement(metric=sum(scores) / len(scores) if scores else None)

    return measure
