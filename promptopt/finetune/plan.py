"""What one training is asked to do, as one value. Knows no torch."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from promptopt.config.methods import Method
from promptopt.config.recipe import TrainingRecipe
from promptopt.finetune.rungs import RungJudge
from promptopt.finetune.watch import TrainingMoment

OnProgress = Callable[[TrainingMoment, int], None]


@dataclass(frozen=True)
class TrainingPlan:
    """The arguments of `train.finetune`, which says what they mean.

    Attributes:
        judge: asks `on_checkpoint`, where there is one.
    """

    train_rows: Path
    val_rows: Path
    base_dir: Path
    recipe: TrainingRecipe
    out_dir: Path
    seed: int
    save_every_s: float
    on_progress: OnProgress | None
    judge: RungJudge
    method: Method | None = None
    start_from: Path | None = None

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.out_dir / "checkpoints"
