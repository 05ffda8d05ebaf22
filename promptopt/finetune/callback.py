"""What happens beside the steps of a training: evaluations, checkpoints, progress, and the reasons to stop."""

import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from promptopt.config.recipe import TrainingRecipe
from promptopt.errors import TrainingError
from promptopt.finetune.checkpoints import checkpoint_dir, judged_points, loss_points, stops_early
from promptopt.finetune.plan import OnProgress
from promptopt.finetune.rungs import RungJudge
from promptopt.finetune.watch import memory_in_use, moment_of
from promptopt.records import LossPoint

if TYPE_CHECKING:
    from transformers import TrainerControl, TrainerState, TrainingArguments


class RunCallback(TrainerCallback):
    """Decides when to evaluate, save and stop; reports progress; stops a run whose loss is no number.

    Args:
        recipe: how often to evaluate, and what patience waits for.
        save_every_s: longest time between two checkpoints, in seconds.
        judge: asked at every checkpoint with an evaluation.
        on_progress: called with each new loss point and the number of all steps.

    Attributes:
        stopped_early: whether training was stopped before its last step.
    """

    def __init__(
        self,
        recipe: TrainingRecipe,
        save_every_s: float,
        judge: RungJudge,
        on_progress: OnProgress | None,
    ) -> None:
        self._recipe = recipe
        self._save_every_s = save_every_s
        self._judge = judge
        self._on_progress = on_progress
        self._last_save = time.monotonic()
        self._eval_steps: frozenset[int] = frozenset()
        self.stopped_early = False

    def on_train_begin(
        self, args: "TrainingArguments", state: "TrainerState", control: "TrainerControl", **kwargs: Any
    ) -> None:
        """Lay out the evaluations."""
        batches = len(kwargs["train_dataloader"])
        steps_per_epoch = math.ceil(batches / args.gradient_accumulation_steps)
        self._eval_steps = evaluation_steps(steps_per_epoch, self._recipe.eval_per_epoch, state.max_steps)
        self._last_save = time.monotonic()

    def on_step_end(
        self, args: "TrainingArguments", state: "TrainerState", control: "TrainerControl", **kwargs: Any
    ) -> None:
        """Ask for an evaluation and a checkpoint where they are due."""
        if state.global_step in self._eval_steps:
            control.should_evaluate = control.should_save = True
        elif time.monotonic() - self._last_save >= self._save_every_s:
            control.should_save = True

    def on_save(
        self, args: "TrainingArguments", state: "TrainerState", control: "TrainerControl", **kwargs: Any
    ) -> None:
        """Stop where the judge says so or patience is over, unless training ends here anyway; report the metric."""
        root = Path(str(args.output_dir))
        stops = self._judge.stops(checkpoint_dir(root, state.global_step))
        points = judged_points(root, state.log_history)
        over = stops_early(points, self._recipe.patience, self._recipe.eval_per_epoch, self._recipe.best_by)
        if stops or (over and state.global_step < state.max_steps):
            control.should_training_stop = self.stopped_early = True
        for point in points[-1:]:
            if point.step == state.global_step and point.metric is not None:
                self._report(point, state.max_steps)
        self._last_save = time.monotonic()

    def on_log(
        self, args: "TrainingArguments", state: "TrainerState", control: "TrainerControl", **kwargs: Any
    ) -> None:
        """Report the new point; refuse to go on with a loss that is no number."""
        points = loss_points(state.log_history[-1:])
        for point in points:
            for value in (point.loss, point.eval_loss):
                if value is not None and not math.isfinite(value):
                    raise diverged(value, point.step, args.learning_rate)
            self._report(point, state.max_steps)

    def _report(self, point: LossPoint, steps: int) -> None:
        if self._on_progress is not None:
            clock = self._judge.clock
            self._on_progress(moment_of(point, clock.tokens_per_s, memory_in_use()), steps)


def diverged(loss: float, step: int, learning_rate: float) -> TrainingError:
    """Return the error of a training whose loss is no number."""
    return TrainingError(
        f"The loss is {loss} at step {step}: training has diverged. Lower the learning rate (finetune.learning_rate, "
        f"now {learning_rate:g}), or raise finetune.warmup_share."
    )


def evaluation_steps(steps_per_epoch: int, eval_per_epoch: int, max_steps: int) -> frozenset[int]:
    """Return the steps after which to evaluate: `eval_per_epoch` per epoch, evenly spread, and the last step."""
    epochs = math.ceil(max_steps / steps_per_epoch)
    spread = {
        epoch * steps_per_epoch + max(1, round(part * steps_per_epoch / eval_per_epoch))
        for epoch in range(epochs)
        for part in range(1, eval_per_epoch + 1)
    }
    return frozenset({step for step in spread if step <= max_steps} | {max_steps})
