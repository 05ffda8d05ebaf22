"""One training, from a base that was lent to the best weights. Imported only when training starts."""

import contextlib
import logging
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import PrinterCallback, ProgressCallback, TrainerState

from promptopt.errors import TrainingError
from promptopt.finetune import lora
from promptopt.finetune.arguments import sft_arguments
from promptopt.finetune.base_model import LoadedBase
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
from promptopt.finetune.trainer import RowTrainer
from promptopt.finetune.verdict import overfitting_verdict
from promptopt.records import FinetuneResult, LossPoint

LORA_DIR = "lora"

logger = logging.getLogger(__name__)


class TrainingSession:
    """Trains and picks the best weights. Changes `base`, as its owner knows (see `resident.ResidentBase.lend`).

    Args:
        rows, measured: trained on, and measured at every evaluation.
        end_ids: tokens at which generation stops.
    """

    def __init__(
        self,
        base: LoadedBase,
        plan: TrainingPlan,
        rows: TokenizedRows,
        measured: TokenizedRows,
        end_ids: frozenset[int],
    ) -> None:
        self._base = base
        self._plan = plan
        self._rows = rows
        self._measured = measured
        self._end_ids = end_ids
        self._newest = newest_complete(plan.checkpoints)
        if self._newest is not None:
            plan.judge.clock.set(self._newest[1].wall_s)

    def run(self) -> FinetuneResult:
        """Train to the end, or from the last complete checkpoint to the end; publish the best LoRA weights."""
        plan, recipe, newest = self._plan, self._plan.recipe, self._newest
        model = lora.add_lora(self._base.model, recipe, plan.seed)
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

    def _build_trainer(self, model: Any, callback: RunCallback) -> RowTrainer:
        plan, recipe, rows = self._plan, self._plan.recipe, self._rows.rows
        values = lora.trainable_values(model)
        lengths = [len(row.input_ids) for row in rows]
        trainer = RowTrainer(
            val_rows=self._measured.rows,
            train_lengths=None if recipe.packing else lengths,
            pad_id=_pad_id(self._base),
            trained_tokens=0 if self._newest is None else self._newest[1].trained_tokens,
            clock=plan.judge.clock,
            model=model,
            args=sft_arguments(
                recipe, plan.checkpoints, plan.seed, self._base.device, max(lengths), fresh=self._newest is None
            ),
            train_dataset=Dataset.from_dict(
                {"input_ids": [list(row.input_ids) for row in rows], "labels": [row.labels for row in rows]}
            ),
            processing_class=self._base.tokenizer,
            callbacks=[callback],
        )
        lora.restore_values(model, values)
        for printer in (PrinterCallback, ProgressCallback):
            trainer.remove_callback(printer)
        return trainer

    def _finish(self, trainer: RowTrainer, model: Any, stopped: bool) -> FinetuneResult:
        plan = self._plan
        points = judged_points(plan.checkpoints, trainer.state.log_history)
        best = best_point(points, plan.recipe.best_by)
        if best is None or best.eval_loss is None:
            raise TrainingError(
                f"Training ended after {trainer.state.global_step} steps without a checkpoint that can be chosen by "
                f"finetune.best_by {plan.recipe.best_by!r}. Use eval_loss, or measure the metric in `on_checkpoint`."
            )
        _warn_if_worse(points, best)
        checkpoint = checkpoint_dir(plan.checkpoints, best.step)
        lora.publish_weights(checkpoint, plan.out_dir / LORA_DIR)
        if not plan.judge.asks:  # who judges checkpoints has seen what they answer
            lora.load_weights(model, checkpoint)
            self._log_stops(model)
        return FinetuneResult(
            lora_dir=LORA_DIR,
            base_model=str(plan.base_dir),
            base_quantization=self._base.held,
            best_step=best.step,
            best_eval_loss=best.eval_loss,
            steps=trainer.state.global_step,
            epochs=float(trainer.state.epoch or 0.0),
            train_rows=len(self._rows.rows),
            val_rows=len(self._measured.rows),
            trained_tokens=trainer.trained_tokens,
            trainable_parameters=lora.trainable_count(model),
            wall_s=plan.judge.clock.seconds,
            device=self._base.device,
            stopped_early=stopped,
            history=tuple(points),
            best_by=plan.recipe.best_by,
            best_metric=best.metric,
            verdict=overfitting_verdict(points, best.step, plan.recipe),
        )

    def _log_stops(self, model: Any) -> None:
        with contextlib.suppress(NotImplementedError):
            check = check_stops(model, self._measured.rows, self._end_ids)
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


def _pad_id(base: LoadedBase) -> int:
    """Return any valid token: padding is masked out of attention and loss."""
    pad = base.tokenizer.pad_token_id
    eos = base.tokenizer.eos_token_id
    found = pad if isinstance(pad, int) else eos
    return found if isinstance(found, int) else 0
