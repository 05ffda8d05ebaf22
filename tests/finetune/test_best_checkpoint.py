"""A known wound of trainers: the best checkpoint is overwritten, by rotation, by a later one, or after a kill.

(The other one, memory that leaks from trial to trial, is tested in test_resident.py.)
"""

from pathlib import Path

import pytest

from promptopt.config.recipe import TrainingRecipe
from promptopt.errors import TrainingError
from promptopt.finetune.rungs import Judgement, RungPoint
from promptopt.finetune.train import finetune
from promptopt.finetune.watch import TrainingMoment, TrainingWatch
from tests.finetune.bits import lora_bytes

RECIPE = TrainingRecipe(
    rank=4, alpha=8, learning_rate=1e-2, epochs=3, batch_size=8, eval_per_epoch=2, patience=None, best_by="metric"
)
METRICS = {3: 0.2, 6: 0.9, 9: 0.9, 12: 0.4, 15: 0.3, 18: 0.1}
"""At the evaluations; the loss falls all the while, so that the two measures disagree."""


class Judge:
    """Gives every checkpoint its metric, remembers its weights, and dies at one."""

    def __init__(self, dies_at: int | None = None) -> None:
        self.weights: dict[int, bytes] = {}
        self._dies_at = dies_at

    def __call__(self, rung: RungPoint) -> Judgement:
        if rung.step == self._dies_at:
            raise InterruptedError
        self.weights[rung.step] = (rung.lora_dir / "adapter_model.safetensors").read_bytes()
        return Judgement(metric=METRICS[rung.step])


def test_the_best_checkpoint_is_never_overwritten(
    base_dir: Path, train_file: Path, val_file: Path, tmp_path: Path
) -> None:
    judge = Judge(dies_at=15)
    with pytest.raises(InterruptedError):
        finetune(train_file, val_file, base_dir, RECIPE, tmp_path, 3, on_checkpoint=judge)
    seen: list[TrainingMoment] = []
    again = Judge()
    result = finetune(
        train_file, val_file, base_dir, RECIPE, tmp_path, 3,
        lambda moment, steps: seen.append(moment), on_checkpoint=again,
    )  # fmt: skip
    assert sorted(again.weights) == [15, 18]  # what was judged before the kill is not judged again
    assert {point.step: point.metric for point in result.history if point.metric is not None} == METRICS
    losses = {point.step: point.eval_loss for point in result.history if point.eval_loss is not None}
    best = 6 if (losses[6] or 0) <= (losses[9] or 0) else 9
    assert (result.best_by, result.best_step, result.best_metric) == ("metric", best, 0.9)
    assert min(losses, key=lambda step: losses[step] or 0.0) > 9, "the loss would have chosen another checkpoint"
    assert lora_bytes(tmp_path) == judge.weights[best]
    assert "metric fell from 0.900 to 0.100" in result.verdict
    assert [moment.metric for moment in seen if moment.metric is not None] == [0.1]
    assert any(moment.tokens_per_s and moment.memory_bytes for moment in seen)


def test_patience_waits_for_the_metric(base_dir: Path, train_file: Path, val_file: Path, tmp_path: Path) -> None:
    recipe = RECIPE.model_copy(update={"patience": 1})
    result = finetune(train_file, val_file, base_dir, recipe, tmp_path, 3, on_checkpoint=Judge())
    assert result.stopped_early
    assert result.steps == result.best_step + 6


def test_a_metric_that_nobody_measures_is_refused(
    base_dir: Path, train_file: Path, val_file: Path, tmp_path: Path
) -> None:
    with pytest.raises(TrainingError, match="nobody measures the metric"):
        finetune(train_file, val_file, base_dir, RECIPE, tmp_path, 3)
    short = RECIPE.model_copy(update={"epochs": 0.2})
    with pytest.raises(TrainingError, match=r"best_by 'metric'\. Use eval_loss"):
        finetune(train_file, val_file, base_dir, short, tmp_path, 3, on_checkpoint=lambda rung: False)


def test_a_line_keeps_what_the_last_moment_did_not_bring() -> None:
    watch = TrainingWatch()
    watch.text(TrainingMoment(step=1, epoch=0.1, eval_loss=2.0, metric=0.5), 10)
    moment = TrainingMoment(step=2, epoch=0.2, loss=1.5, learning_rate=1e-3, tokens_per_s=1234.5, memory_bytes=2**30)
    assert watch.text(moment, 10) == "step 2/10, loss 1.500, eval loss 2.000, metric 0.500"
    assert watch.pace(moment, 10) == "1,234 tokens/s, learning rate 1.0e-03, 1.00 GiB"
