"""The training stages of an experiment as the weights wing takes them: recipe without gaps, rows, who watches."""

from pathlib import Path

from promptopt.config.recipe import TrainingRecipe
from promptopt.config.training import CausalStage, TrainingStage
from promptopt.errors import ConfigError
from promptopt.finetune.rungs import OnCheckpoint
from promptopt.finetune.stages import StageRun, stage_folder
from promptopt.pipeline.context import RunContext
from promptopt.pipeline.recipe import recipe_of
from promptopt.pipeline.training import rows_folder
from promptopt.pipeline.watching import WATCHED, metric_watch

_OF_ROWS = ("epochs", "batch_size", "gradient_accumulation", "max_length")
"""Fields that are chosen from the number and length of rows, which say nothing about documents."""


def stage_runs(context: RunContext, distilled: Path, tuned: Path) -> list[StageRun]:
    """Return the training stages in order.

    Args:
        distilled: folder with their rows.
        tuned: gets the answers by which checkpoints are watched.

    Raises:
        ConfigError: a stage's recipe does not fit what was chosen for all stages.
    """
    stages = context.config.training_stages
    runs = []
    for number, stage in enumerate(stages):
        folder = rows_folder(distilled, number, len(stages), stage.kind)
        seed = context.config.seed if stage.seed is None else stage.seed
        recipe = _recipe(context, stage)
        watched = tuned / WATCHED
        if len(stages) > 1:
            watched /= stage_folder(tuned, number, stage.kind).name
        watch = _watch(context, stage, recipe, watched)
        runs.append(StageRun(folder / "train.jsonl", folder / "val.jsonl", stage, recipe, seed, watch))
    return runs


def _recipe(context: RunContext, stage: TrainingStage) -> TrainingRecipe:
    chosen = recipe_of(context)
    if isinstance(stage, CausalStage):
        written = context.config.finetune
        chosen = chosen.model_copy(update={name: getattr(written, name) for name in _OF_ROWS})
    try:
        return stage.recipe_on(chosen)
    except ValueError as error:
        raise ConfigError(f"The training stage {stage.kind!r}: {error}.") from error


def _watch(context: RunContext, stage: TrainingStage, recipe: TrainingRecipe, folder: Path) -> OnCheckpoint | None:
    if isinstance(stage, CausalStage) and recipe.best_by != "metric":
        return None  # documents teach no answers
    return metric_watch(context, recipe, folder)
