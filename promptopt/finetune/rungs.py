"""Rungs: the evaluated checkpoints at which a study asks whether a training is worth going on with.

Successive halving (Jamieson and Talwalkar 2016, arXiv 1502.07943) calls a budget at which candidates are compared a
rung. Here a rung is a checkpoint with an evaluation; the study judges it by its own measure and may stop the training.
"""

import json
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from promptopt.config.recipe import TrainingRecipe
from promptopt.errors import TrainingError
from promptopt.extras import require
from promptopt.finetune.checkpoints import STATE, loss_points, note_metric
from promptopt.finetune.stopwatch import Stopwatch


@dataclass(frozen=True)
class RungPoint:
    """A training at one of its evaluated checkpoints.

    Attributes:
        epoch: epochs trained so far, a fraction within an epoch.
        eval_loss: nats per completion token of the validation rows.
        lora_dir: folder with the LoRA weights of this step, complete, in PEFT's format; it stays while it is judged.
    """

    step: int
    total_steps: int
    epoch: float
    eval_loss: float
    lora_dir: Path


@dataclass(frozen=True)
class Judgement:
    """What became of a rung.

    Attributes:
        metric: mean task metric of answers generated with the weights of the rung; None where it was not measured.
    """

    stop: bool = False
    metric: float | None = None


OnCheckpoint = Callable[[RungPoint], bool | Judgement]
"""A truth value alone says whether training stops."""


def require_measured(recipe: TrainingRecipe, on_checkpoint: OnCheckpoint | None) -> None:
    """Raise TrainingError where the best checkpoint is to be chosen by a metric that nobody measures."""
    if recipe.best_by == "metric" and on_checkpoint is None:
        raise TrainingError(
            "finetune.best_by is 'metric', and nobody measures the metric of a checkpoint: pass `on_checkpoint`, set "
            "finetune.watched_rows above 0, or use best_by: eval_loss."
        )


class RungJudge:
    """Asks `on_checkpoint` whether a training stops at a rung; hides from the training that it was asked.

    Args:
        on_checkpoint: None lets every training go on.

    Attributes:
        clock: of the training; stands still while the question is answered.
        failure: what `on_checkpoint` raised; tells it apart from failures of the training.
    """

    def __init__(self, on_checkpoint: OnCheckpoint | None) -> None:
        self._on_checkpoint = on_checkpoint
        self.clock = Stopwatch()
        self.failure: BaseException | None = None

    @property
    def asks(self) -> bool:
        """Whether there is anybody to ask."""
        return self._on_checkpoint is not None

    def stops(self, checkpoint: Path) -> bool:
        """Say whether training stops at this complete checkpoint; never at its last step, nor where none is due."""
        rung = None if self._on_checkpoint is None else read_rung(checkpoint)
        if self._on_checkpoint is None or rung is None:
            return False
        try:
            with self.clock.paused(), kept_random_state():
                answer = self._on_checkpoint(rung)
                judged = answer if isinstance(answer, Judgement) else Judgement(bool(answer))
                if judged.metric is not None:
                    note_metric(checkpoint.parent, rung.step, judged.metric)
        except BaseException as error:
            self.failure = error
            raise
        return judged.stop and rung.step < rung.total_steps


def read_rung(checkpoint: Path) -> RungPoint | None:
    """Return the rung that a complete checkpoint stands on; None for one between two evaluations."""
    state = json.loads((checkpoint / STATE).read_text(encoding="utf-8"))
    step = int(state["global_step"])
    losses = [point.eval_loss for point in loss_points(state["log_history"]) if point.step == step]
    found = [loss for loss in losses if loss is not None]
    if not found:
        return None
    return RungPoint(step, int(state["max_steps"]), float(state["epoch"] or 0.0), found[-1], checkpoint)


@contextmanager
def kept_random_state() -> Iterator[None]:
    """Give the global random state of Python, NumPy and torch (all its devices) back as it was."""
    torch = require("torch")
    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(cpu)
        if cuda is not None:
            torch.cuda.set_rng_state_all(cuda)
