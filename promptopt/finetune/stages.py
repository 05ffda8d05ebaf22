"""Several trainings one after the other, each going on with the best LoRA weights of the one before.

    out_dir/stages/1-causal/   each stage as `train.finetune` leaves it
            stages/2-sft/
            lora/              the last stage's weights
            result.json        the last stage's FinetuneResult, with all of them as `stages`; written last

Killed anywhere, the same call passes over finished stages and goes on inside the one that was running.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from promptopt.config.methods import Method
from promptopt.config.recipe import TrainingRecipe
from promptopt.errors import TrainingError
from promptopt.finetune.base_model import Residency
from promptopt.finetune.resident import ResidentBase
from promptopt.finetune.run_folder import finish_run
from promptopt.finetune.rungs import OnCheckpoint, require_measured
from promptopt.finetune.train import finetune
from promptopt.finetune.trainer_args import check_trainer_args
from promptopt.finetune.watch import TrainingMoment
from promptopt.records import FinetuneResult

OnStageProgress = Callable[[int, TrainingMoment, int], None]
"""Called with the stage's number from 0, a loss point, and the number of the stage's steps."""


@dataclass(frozen=True)
class StageRun:
    """One training stage: rows (documents of `Causal`), method, recipe, seed, and who judges its checkpoints."""

    train_rows: Path
    val_rows: Path
    method: Method
    recipe: TrainingRecipe
    seed: int
    on_checkpoint: OnCheckpoint | None = None


def finetune_stages(
    stages: Sequence[StageRun],
    base_dir: Path,
    out_dir: Path,
    on_progress: OnStageProgress | None = None,
    *,
    residency: Residency = "auto",
    save_every_s: float = 60.0,
) -> FinetuneResult:
    """Train `stages` in order on one base in memory; one stage alone trains in `out_dir` itself, as `finetune` does.

    Raises:
        ConfigError: a stage's `trainer_args` cannot be passed on; no stage has begun then.
        TrainingError: there is no stage, they hold the base differently, or a metric to choose by is not measured.
        PromptoptError: whatever `finetune` finds wrong.
    """
    if not stages or len({stage.recipe.base_quantization for stage in stages}) > 1:
        raise TrainingError("Training needs at least one stage, and all hold the base alike (base_quantization).")
    for stage in stages:
        check_trainer_args(stage.recipe, stage.method.kind)
        require_measured(stage.recipe, stage.on_checkpoint)
    results: list[FinetuneResult] = []
    before: Path | None = None
    with ExitStack() as stack:
        base = stack.enter_context(ResidentBase(base_dir, stages[0].recipe.base_quantization, residency))
        for number, stage in enumerate(stages):
            folder = stage_folder(out_dir, number, stage.method.kind) if len(stages) > 1 else out_dir
            result = finetune(
                stage.train_rows,
                stage.val_rows,
                base_dir,
                stage.recipe,
                folder,
                stage.seed,
                None if on_progress is None else partial(on_progress, number),
                residency=residency,
                save_every_s=save_every_s,
                resident=base,
                on_checkpoint=stage.on_checkpoint,
                method=stage.method,
                start_from=before,
            )
            results.append(result)
            before = folder / result.lora_dir
    if before is None or len(stages) == 1:
        return results[-1]
    from promptopt.finetune.lora import publish_weights

    last = results[-1].model_copy(update={"stages": tuple(results)})
    publish_weights(before, out_dir / last.lora_dir)
    finish_run(out_dir, last)
    return last


def stage_folder(out_dir: Path, number: int, kind: str) -> Path:
    """Return the folder of the stage `number` (from 0) of several."""
    return out_dir / "stages" / f"{number + 1}-{kind}"
