"""One training run, from loaded base to best weights. Imported only when training starts; owns the model meanwhile."""

import contextlib
import gc
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import PrinterCallback, ProgressCallback, TrainerState
from trl.trainer.sft_config import SFTConfig

from promptopt.config.recipe import TrainingRecipe
from promptopt.errors import TrainingError
from promptopt.finetune import lora
from promptopt.finetune.base_folder import end_token_ids
from promptopt.finetune.base_model import LoadedBase, Residency, load_base
from promptopt.finetune.checkpoints import (
    CheckpointMarker,
    best_point,
    checkpoint_dir,
    loss_points,
    newest_complete,
    saved_points,
    stops_early,
)
from promptopt.finetune.linear4bit import check_guarded
from promptopt.finetune.rows import TokenizedRows
from promptopt.finetune.stop_check import check_stops
from promptopt.finetune.trainer import RowTrainer, RunCallback
from promptopt.records import FinetuneResult, LossPoint

LORA_DIR = "lora"

logger = logging.getLogger(__name__)


class TrainingSession:
    """Loads, trains, picks the best weights. `release` gives all memory back, also after an error."""

    def __init__(
        self,
        base_dir: Path,
        recipe: TrainingRecipe,
        out_dir: Path,
        seed: int,
        residency: Residency,
        save_every_s: float,
    ) -> None:
        self._base_dir = base_dir
        self._recipe = recipe
        self._out_dir = out_dir
        self._checkpoints = out_dir / "checkpoints"
        self._seed = seed
        self._residency = residency
        self._save_every_s = save_every_s
        self._base: LoadedBase | None = None
        self._model: Any = None
        self._trainer: RowTrainer | None = None

    def run(
        self, rows: TokenizedRows, measured: TokenizedRows, on_progress: Callable[[LossPoint, int], None] | None
    ) -> FinetuneResult:
        """Train to the end, or from the last complete checkpoint to the end; publish the best LoRA weights."""
        recipe = self._recipe
        base = self._base = load_base(self._base_dir, recipe.base_quantization, self._residency)
        self._model = lora.add_lora(base.model, recipe, self._seed)
        newest = newest_complete(self._checkpoints)
        callback = RunCallback(recipe.eval_per_epoch, recipe.patience, self._save_every_s, on_progress)
        trainer = self._trainer = self._build_trainer(base, rows, measured, callback, newest)
        if base.held in ("nf4", "fp4"):
            check_guarded(self._model)
        stopped = newest is not None and stops_early(saved_points(newest[0]), recipe.patience, recipe.eval_per_epoch)
        if newest is not None and stopped:
            # The kill came between the checkpoint that ended training and the result: nothing is left to train.
            trainer.state = TrainerState.load_from_json(str(newest[0] / "trainer_state.json"))
            wall_s = newest[1].wall_s
        else:
            trainer.start_clock()
            trainer.train(resume_from_checkpoint=None if newest is None else str(newest[0]))
            wall_s = trainer.wall_s
        stopped = stopped or callback.stopped_early
        return self._finish(trainer, base, rows, measured, wall_s, stopped)

    def release(self) -> None:
        """Drop every reference to the model."""
        if self._base is not None:
            # TRL patches `forward` onto the base; the bound method keeps the model alive.
            self._base.model.__dict__.pop("forward", None)
        self._base = self._model = self._trainer = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _build_trainer(
        self,
        base: LoadedBase,
        rows: TokenizedRows,
        measured: TokenizedRows,
        callback: RunCallback,
        newest: tuple[Path, CheckpointMarker] | None,
    ) -> RowTrainer:
        packing = self._recipe.packing
        values = lora.trainable_values(self._model)
        trainer = RowTrainer(
            val_rows=measured.rows,
            train_lengths=None if packing else [len(row.input_ids) for row in rows.rows],
            pad_id=_pad_id(base),
            trained_tokens=0 if newest is None else newest[1].trained_tokens,
            wall_s=0.0 if newest is None else newest[1].wall_s,
            model=self._model,
            args=self._arguments(base.device, fresh=newest is None, rows=rows),
            train_dataset=Dataset.from_dict(
                {
                    "input_ids": [list(row.input_ids) for row in rows.rows],
                    "labels": [row.labels for row in rows.rows],
                }
            ),
            processing_class=base.tokenizer,
            callbacks=[callback],
        )
        lora.restore_values(self._model, values)
        for printer in (PrinterCallback, ProgressCallback):
            trainer.remove_callback(printer)
        return trainer

    def _arguments(self, device: str, *, fresh: bool, rows: TokenizedRows) -> SFTConfig:
        recipe = self._recipe
        return SFTConfig(
            output_dir=str(self._checkpoints),
            seed=self._seed,
            data_seed=self._seed,
            use_cpu=device == "cpu",
            bf16=device == "cuda",
            fp16=False,
            num_train_epochs=recipe.epochs,
            per_device_train_batch_size=recipe.batch_size,
            per_device_eval_batch_size=recipe.batch_size,
            gradient_accumulation_steps=recipe.gradient_accumulation,
            gradient_checkpointing=recipe.gradient_checkpointing,
            learning_rate=recipe.learning_rate,
            lr_scheduler_type="linear",
            warmup_steps=recipe.warmup_share,
            weight_decay=recipe.weight_decay,
            max_grad_norm=recipe.max_grad_norm,
            neftune_noise_alpha=recipe.neftune_noise,
            optim="adamw_torch",
            loss_type=recipe.loss,
            completion_only_loss=False,  # labels are given
            packing=recipe.packing,
            packing_strategy="bfd",
            eval_packing=False,
            max_length=max(max(len(row.input_ids) for row in rows.rows), recipe.max_length if recipe.packing else 0),
            dataset_kwargs={"skip_prepare_dataset": not recipe.packing},
            # Evaluations and checkpoints are asked for by RunCallback; the loss before training is the first point.
            eval_strategy="no",
            save_strategy="no",
            eval_on_start=fresh,
            logging_strategy="steps",
            logging_steps=1,
            logging_nan_inf_filter=False,
            report_to="none",
            push_to_hub=False,
            disable_tqdm=True,
            dataloader_num_workers=0,
            dataloader_pin_memory=device == "cuda",
            remove_unused_columns=False,
        )

    def _finish(
        self,
        trainer: RowTrainer,
        base: LoadedBase,
        rows: TokenizedRows,
        measured: TokenizedRows,
        wall_s: float,
        stopped: bool,
    ) -> FinetuneResult:
        points = loss_points(trainer.state.log_history)
        best = best_point(points)
        if best is None or best.eval_loss is None:
            raise TrainingError(f"Training ended after {trainer.state.global_step} steps without an evaluation.")
        _warn_if_worse(points, best)
        checkpoint = checkpoint_dir(self._checkpoints, best.step)
        lora.publish_weights(checkpoint, self._out_dir / LORA_DIR)
        lora.load_weights(self._model, checkpoint)
        self._log_stops(self._model, base, measured)
        return FinetuneResult(
            lora_dir=LORA_DIR,
            base_model=str(self._base_dir),
            base_quantization=base.held,
            best_step=best.step,
            best_eval_loss=best.eval_loss,
            steps=trainer.state.global_step,
            epochs=float(trainer.state.epoch or 0.0),
            train_rows=len(rows.rows),
            val_rows=len(measured.rows),
            trained_tokens=trainer.trained_tokens,
            trainable_parameters=lora.trainable_count(self._model),
            wall_s=wall_s,
            device=base.device,
            stopped_early=stopped,
            history=tuple(points),
        )

    def _log_stops(self, model: Any, base: LoadedBase, measured: TokenizedRows) -> None:
        eos = base.tokenizer.eos_token_id
        end_ids = end_token_ids(self._base_dir, eos if isinstance(eos, int) else None)
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


def _pad_id(base: LoadedBase) -> int:
    """Return any valid token: padding is masked out of attention and loss."""
    pad = base.tokenizer.pad_token_id
    eos = base.tokenizer.eos_token_id
    found = pad if isinstance(pad, int) else eos
    return found if isinstance(found, int) else 0
