"""One of several trainings that share a forward: its own optimizer, schedule, clipping, evaluations and checkpoints."""

import math
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from transformers import Trainer, TrainerControl, TrainerState, get_scheduler

from promptopt.finetune import lora
from promptopt.finetune.arguments import sft_arguments
from promptopt.finetune.callback import diverged, evaluation_steps
from promptopt.finetune.checkpoints import (
    STATE,
    best_steps,
    checkpoint_dir,
    judged_points,
    loss_points,
    mark_complete,
    newest_complete,
    rotate,
    stops_early,
)
from promptopt.finetune.rows import TokenRow
from promptopt.finetune.together.forward import LoraSet, SharedForward, Slice
from promptopt.finetune.together.noise import NoiseSource
from promptopt.finetune.together.order import Step, TrainingOrder
from promptopt.finetune.trainer import full_disk_explained
from promptopt.finetune.watch import memory_in_use, moment_of
from promptopt.records import LossPoint

if TYPE_CHECKING:
    from torch import Tensor

    from promptopt.finetune.together.prepared import Prepared

_OPTIMIZER, _SCHEDULER = "optimizer.pt", "scheduler.pt"


class Member:
    """A training beside others. Its checkpoints are those of `finetune`: either goes on from what the other left.

    Args:
        lora_set: names its LoRA weights in the shared forward.

    Attributes:
        stopped: whether it was stopped before its last step, by its patience or by its judge.
        trained_tokens: completion tokens that carried loss so far.
    """

    def __init__(self, lora_set: LoraSet, prepared: "Prepared", device: str) -> None:
        self.lora, self.plan, self.method = lora_set, prepared.plan, prepared.method
        self.rows, self.measured = prepared.rows, prepared.measured
        self._device = device
        recipe = self.plan.recipe
        self._order = TrainingOrder(self.rows.rows, recipe, self.plan.seed)
        self._evaluations = evaluation_steps(self._order.steps_per_epoch, recipe.eval_per_epoch, self._order.max_steps)
        self.stopped = False
        self.trained_tokens = 0
        self.state = TrainerState(
            epoch=0.0,
            max_steps=self._order.max_steps,
            num_train_epochs=math.ceil(recipe.epochs),
            logging_steps=1,
            train_batch_size=recipe.batch_size,
            stateful_callbacks=cast(Any, [TrainerControl()]),  # the Trainer looks for it when it goes on from here
        )
        self._batch, self._loss = 0, 0.0
        self._last_save = time.monotonic()

    def begin(self, shared: SharedForward) -> None:
        """Make the optimizer; take up the newest checkpoint, if there is one."""
        self._shared = shared
        self._parameters = shared.parameters(self.lora)
        plan = self.plan
        longest = max(len(row.input_ids) for row in self.rows.rows)
        arguments = sft_arguments(
            plan.recipe, plan.checkpoints, plan.seed, self._device, longest, fresh=True, packed=False
        )
        optimizer_class, options = Trainer.get_optimizer_cls_and_kwargs(arguments, shared.model)
        # The Trainer's two groups; LoRA weights are matrices, so the one without decay is empty.
        groups = [
            {"params": self._parameters, "weight_decay": plan.recipe.weight_decay},
            {"params": [], "weight_decay": 0.0},
        ]
        self._optimizer = optimizer_class(groups, **options)
        steps = self._order.max_steps
        self._schedule = get_scheduler(
            arguments.lr_scheduler_type,
            self._optimizer,
            arguments.get_warmup_steps(steps),
            steps,
            cast("dict[str, Any] | None", arguments.lr_scheduler_kwargs),
        )
        newest = newest_complete(plan.checkpoints)
        if newest is not None:
            self._go_on(newest[0], newest[1].trained_tokens, newest[1].wall_s)

    @property
    def finished(self) -> bool:
        """Whether it has nothing left to train."""
        return self.stopped or self.state.global_step >= self._order.max_steps

    @property
    def fresh(self) -> bool:
        """Whether nothing was evaluated yet."""
        return not self.state.log_history

    def next_batch(self) -> tuple[tuple[TokenRow, ...], Slice]:
        """Return the rows it trains on next, and its part of a shared batch that begins with them."""
        step = self._step()
        rows = step.batches[self._batch]
        number = self.state.global_step * self.plan.recipe.gradient_accumulation + self._batch
        lengths = [len(row.input_ids) for row in rows]
        self.plan.judge.clock.count(sum(lengths))
        return rows, Slice(self.lora, len(rows), max(lengths), NoiseSource(self.plan.seed, number))

    def loss(self, log_probs: "Tensor") -> "Tensor":
        """Return the part of the step's loss that these log-probabilities of completion tokens are.

        Raises:
            TrainingError: it is no number.
        """
        dft = self.plan.recipe.loss == "dft"
        losses = -log_probs * log_probs.exp().detach() if dft else -log_probs
        loss = losses.sum() / max(self._step().tokens, 1)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise diverged(value, self.state.global_step + 1, self.plan.recipe.learning_rate)
        self._loss += value
        self.trained_tokens += len(log_probs)
        return loss

    def after_backward(self) -> bool:
        """Take the optimizer's step if the gradients of all its batches are there; say whether it did."""
        step = self._step()
        self._batch += 1
        if self._batch < len(step.batches):
            return False
        torch.nn.utils.clip_grad_norm_(self._parameters, self.plan.recipe.max_grad_norm)
        self._optimizer.step()
        rate = float(self._schedule.get_last_lr()[0])
        self._schedule.step()
        self._optimizer.zero_grad(set_to_none=True)
        self.state.global_step += 1
        self.state.epoch = step.epoch
        loss, self._loss, self._batch = self._loss, 0.0, 0
        self._note({"loss": loss, "learning_rate": rate})
        return True

    def end(self) -> None:
        """Free what only a training needs."""
        for parameter in self._parameters:
            parameter.grad = None
            parameter.requires_grad_(False)
        del self._optimizer, self._schedule

    @property
    def evaluation_due(self) -> bool:
        """Whether it is to be evaluated at the step it has come to."""
        return self.state.global_step in self._evaluations

    def note_evaluation(self, loss: float) -> None:
        """Take the evaluation loss of this moment.

        Raises:
            TrainingError: it is no number.
        """
        self._note({"eval_loss": loss})

    def save_if_due(self, evaluated: bool) -> None:
        """Write a checkpoint after an evaluation, or when the last one is old; ask the judge about it.

        Training stops where the judge says so or patience is over, unless it ends here anyway.

        Raises:
            TrainingError: it cannot be written.
        """
        if not evaluated and time.monotonic() - self._last_save < self.plan.save_every_s:
            return
        folder = checkpoint_dir(self.plan.checkpoints, self.state.global_step)
        shutil.rmtree(folder, ignore_errors=True)
        with full_disk_explained(folder):
            lora.save_weights(self._shared.model, folder, self.lora.name)
            torch.save(self._optimizer.state_dict(), folder / _OPTIMIZER)
            torch.save(self._schedule.state_dict(), folder / _SCHEDULER)
            self.state.save_to_json(str(folder / STATE))
            mark_complete(folder, self.state.global_step, self.plan.judge.clock.seconds, self.trained_tokens)
        rotate(self.plan.checkpoints, *best_steps(self._points()))
        judged = self.plan.judge.stops(folder)
        self.stopped = judged or self._patience_is_over()
        for point in self._points()[-1:]:
            if point.step == self.state.global_step and point.metric is not None:
                self._report(point)
        self._last_save = time.monotonic()

    def _step(self) -> Step:
        return self._order.step(self.state.global_step)

    def _patience_is_over(self) -> bool:
        recipe = self.plan.recipe
        over = stops_early(self._points(), recipe.patience, recipe.eval_per_epoch, recipe.best_by)
        return over and self.state.global_step < self._order.max_steps

    def _note(self, entry: dict[str, float]) -> None:
        entry = {**entry, "epoch": float(self.state.epoch or 0.0), "step": self.state.global_step}
        self.state.log_history.append(entry)
        point = loss_points([entry])[0]
        for value in (point.loss, point.eval_loss):
            if value is not None and not math.isfinite(value):
                raise diverged(value, point.step, self.plan.recipe.learning_rate)
        self._report(point)

    def _points(self) -> list[LossPoint]:
        return judged_points(self.plan.checkpoints, self.state.log_history)

    def _report(self, point: LossPoint) -> None:
        if self.plan.on_progress is not None:
            speed = self.plan.judge.clock.tokens_per_s
            self.plan.on_progress(moment_of(point, speed, memory_in_use()), self._order.max_steps)

    def _go_on(self, folder: Path, trained_tokens: int, wall_s: float) -> None:
        lora.load_weights(self._shared.model, folder, self.lora.name)
        for name, owner in ((_OPTIMIZER, self._optimizer), (_SCHEDULER, self._schedule)):
            values: Any = torch.load(folder / name, map_location="cpu", weights_only=True)
            owner.load_state_dict(values)
        self.state = TrainerState.load_from_json(str(folder / STATE))
        self.trained_tokens = trained_tokens
        self.plan.judge.clock.set(wall_s)
        # Asked again: the process may have been killed before its answer counted.
        judged = self.plan.judge.stops(folder)
        self.stopped = judged or self._patience_is_over()
