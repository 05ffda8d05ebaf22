"""What happens beside the steps of a training: evaluations, checkpoints, progress, and the reasons to stop."""

import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from promptopt.errors import TrainingError
from promptopt.finetune.checkpoints import checkpoint_dir, loss_points, stops_early
from promptopt.finetune.plan import OnProgress
from promptopt.finetune.rungs import RungJudge

if TYPE_CHECKING:
    from transformers import TrainerControl, TrainerState, TrainingArguments


class RunCallback(TrainerCallback):
    """Decides when to evaluate, save and stop; reports progress; stops a run whose loss is no number.

    Args:
        eval_per_epoch: evaluations per epoch, evenly spread, and one at the very end.
        patience: see `TrainingRecipe.patience`.
        save_every_s: longest time between two checkpoints, in seconds.
        judge: asked at every checkpoint with an evaluation.
        on_progress: called with each new loss point and the number of all steps.

    Attributes:
        stopped_early: whether training was stopped before its last step.
    """

    def __init__(
        self,
        eval_per_epoch: int,
        patience: int | None,
        save_every_s: float,
        judge: RungJudge,
        on_progress: OnProgress | None,
    ) -> None:
        self._eval_per_epoch = eval_per_epoch
        self._patience = patience
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
        self._eval_steps = evaluation_steps(steps_per_epoch, self._eval_per_epoch, state.max_steps)
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
        """Stop where the judge says so; remember when the last checkpoint was written and judged."""
        if self._judge.stops(checkpoint_dir(Path(str(args.output_dir)), state.global_step)):
            control.should_training_stop = self.stopped_early = True
        self._last_save = time.monotonic()

    def on_evaluate(
        self, args: "TrainingArguments", state: "TrainerState", control: "TrainerControl", **kwargs: Any
    ) -> None:
        """Stop when patience is over, unless training ends here anyway."""
        over = stops_early(loss_points(state.log_history), self._patience, self._eval_per_epoch)
        if over and state.global_step < state.max_steps:
            control.should_training_stop = self.stopped_early = True

    def on_log(
        self, args: "TrainingArguments", state: "TrainerState", control: "TrainerControl", **kwargs: Any
    ) -> None:
        """Report the new point; refuse to go on with a loss that is no number."""
        points = loss_points(state.log_history[-1:])
        for point in points:
            for value in (point.loss, point.eval_loss):
                if value is not None and not math.isfinite(value):
                    raise diverged(value, point.step, args.learning_rate)
            if self._on_progress is not None:
                self._on_progress(point, state.max_steps)


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
