"""One training, from a base that was lent to the best weights. Imported only when training starts."""

import contextlib
import logging
from pathlib import Path
from typing import Any

from transformers import PrinterCallback, ProgressCallback, TrainerState

from promptopt.errors import TrainingError
from promptopt.finetune import lora
from promptopt.finetune.base_model import LoadedBase
from promptopt.finetune.build import TrainerParts, build_trainer
from promptopt.finetune.callback import RunCallback
from promptopt.finetune.checkpoints import (
    STATE,
    best_point,
    checkpoint_dir,
    judged_points,
    newest_complete,
    stops_early,
)
from promptopt.finetune.linear4bit import check_guarded
from promptopt.finetune.plan import TrainingPlan
from promptopt.finetune.rows import TokenizedRows
from promptopt.finetune.stop_check import check_stops
from promptopt.finetune.verdict import overfitting_verdict
from promptopt.records import FinetuneResult, LossPoint

LORA_DIR = "lora"

logger = logging.getLogger(__name__)


class TrainingSession:
    """Trains and picks the best weights. Changes `base`, as its owner knows (see `resident.ResidentBase.lend`).

    Args:
        rows, measured: trained on, and measured at every evaluation.
        end_ids: tokens at which generation stops.
        method: kind of the training method.
    """

    def __init__(
        self,
        base: LoadedBase,
        plan: TrainingPlan,
        rows: TokenizedRows,
        measured: TokenizedRows,
        end_ids: frozenset[int],
        method: str,
    ) -> None:
        self._base = base
        self._plan = plan
        self._rows = rows
        self._measured = measured
        self._end_ids = end_ids
        self._method = method
        self._newest = newest_complete(plan.checkpoints)
        if self._newest is not None:
            plan.judge.clock.set(self._newest[1].wall_s)

    def run(self) -> FinetuneResult:
        """Train to the end, or from the last complete checkpoint to the end; publish the best LoRA weights."""
        plan, recipe, newest = self._plan, self._plan.recipe, self._newest
        model = lora.add_lora(self._base.model, recipe, plan.seed, plan.start_from)
        callback = RunCallback(recipe, plan.save_every_s, plan.judge, plan.on_progress)
        trainer = self._build_trainer(model, callback)
        if self._base.held in ("nf4", "fp4"):
            check_guarded(model)
        stopped = newest is not None and self._stopped_at(newest[0])
        if newest is not None:
            trainer.state = TrainerState.load_from_json(str(newest[0] / STATE))
        # A kill between the checkpoint that ended training and the result leaves nothing to train.
        if newest is None or not (stopped or trainer.state.global_step >= trainer.state.max_steps):
            plan.judge.clock.start()
            trainer.train(resume_from_checkpoint=None if newest is None else str(newest[0]))
            plan.judge.clock.stop()
        return self._finish(trainer, model, stopped or callback.stopped_early)

    def _stopped_at(self, newest: Path) -> bool:
        """Say whether training was to stop at the checkpoint that it would go on from.

        The judge is asked again: the process may have been killed before it answered, and no rung is left out.
        """
        judged = self._plan.judge.stops(newest)
        state = TrainerState.load_from_json(str(newest / STATE))
        recipe = self._plan.recipe
        points = judged_points(self._plan.checkpoints, state.log_history)
        over = stops_early(points, recipe.patience, recipe.eval_per_epoch, recipe.best_by)
        return judged or (over and state.global_step < state.max_steps)

    def _build_trainer(self, model: Any, callback: RunCallback) -> Any:
        plan, pad_id = self._plan, pad_token(self._base)
        values = lora.trainable_values(model)
        common = {
            "val_rows": self._measured.rows,
            "pad_id": pad_id,
            "trained_tokens": 0 if self._newest is None else self._newest[1].trained_tokens,
            "clock": plan.judge.clock,
            "model": model,
            "processing_class": self._base.tokenizer,
            "callbacks": [callback],
        }
        trainer = build_trainer(
            TrainerParts(self._base, plan, self._rows, pad_id, self._newest is None, self._end_ids, common)
        )
        lora.restore_values(model, values)
        for printer in (PrinterCallback, ProgressCallback):
            trainer.remove_callback(printer)
        return trainer

    def _finish(self, trainer: Any, model: Any, stopped: bool) -> FinetuneResult:
        plan = self._plan
        result = publish_best(
            plan, self._base, self._rows, self._measured, self._method, trainer.state, trainer.trained_tokens
        )
        result = result.model_copy(
            update={"trainable_parameters": lora.trainable_count(model), "stopped_early": stopped}
        )
        documents = self._method == "causal"
        if not plan.judge.asks and not documents:  # who judges checkpoints has seen what they answer
            lora.load_weights(model, plan.out_dir / LORA_DIR)
            log_stops(model, self._measured, self._end_ids)
        return result


def publish_best(
    plan: TrainingPlan,
    base: LoadedBase,
    rows: TokenizedRows,
    measured: TokenizedRows,
    method: str,
    state: TrainerState,
    trained_tokens: int,
) -> FinetuneResult:
    """Copy the best checkpoint's weights to `lora/`; return the record of a training that ended at `state`.

    What the trainer alone knows is left for it to fill in: the number of trained parameters, and whether it stopped
    early.

    Raises:
        TrainingError: no checkpoint was measured by what the recipe chooses by.
    """
    points = judged_points(plan.checkpoints, state.log_history)
    best = best_point(points, plan.recipe.best_by)
    if best is None or best.eval_loss is None:
        raise TrainingError(
            f"Training ended after {state.global_step} steps without a checkpoint that can be chosen by "
            f"finetune.best_by {plan.recipe.best_by!r}. Use eval_loss, or measure the metric in `on_checkpoint`."
        )
    _warn_if_worse(points, best)
    lora.publish_weights(checkpoint_dir(plan.checkpoints, best.step), plan.out_dir / LORA_DIR)
    return FinetuneResult(
        lora_dir=LORA_DIR,
        base_model=str(plan.base_dir),
        base_quantization=base.held,
        best_step=best.step,
        best_eval_loss=best.eval_loss,
        steps=state.global_step,
        epochs=float(state.epoch or 0.0),
        train_rows=len(rows.rows),
        val_rows=len(measured.rows),
        trained_tokens=trained_tokens,
        trainable_parameters=0,
        wall_s=plan.judge.clock.seconds,
        device=base.device,
        stopped_early=False,
        history=tuple(points),
        method=method,
        dropped_rows=len(rows.dropped_ids) + len(measured.dropped_ids),
        best_by=plan.recipe.best_by,
        best_metric=best.metric,
        verdict=overfitting_verdict(points, best.step, plan.recipe, method),
    )


def log_stops(model: Any, measured: TokenizedRows, end_ids: frozenset[int]) -> None:
    """Log on how many validation rows the tuned model ends its turn."""
    with contextlib.suppress(NotImplementedError):
        check = check_stops(model, measured.rows, end_ids)
        level = logging.INFO if check.stopped == check.asked else logging.WARNING
        logger.log(level, "The tuned model ended its turn on %d of %d validation rows", check.stopped, check.asked)


def _warn_if_worse(points: list[LossPoint], best: LossPoint) -> None:
    before = next((point.eval_loss for point in points if point.step == 0 and point.eval_loss is not None), None)
    if before is not None and best.eval_loss is not None and best.eval_loss >= before:
        logger.warning(
            "Training did not lower the evaluation loss: %.4f before, %.4f at best. Change the learning rate first.",
            before,
            best.eval_loss,
        )


def pad_token(base: LoadedBase) -> int:
    """Return any valid token: padding is masked out of attention and loss."""
    pad = base.tokenizer.pad_token_id
    eos = base.tokenizer.eos_token_id
    found = pad if isinstance(pad, int) else eos
    return found if isinstance(found, int) else 0
