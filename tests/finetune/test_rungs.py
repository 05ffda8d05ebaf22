"""The rung hook: asked at every evaluated checkpoint, obeyed, not felt by the training, never left out by a kill."""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from promptopt.config.recipe import TrainingRecipe
from promptopt.errors import TrainingError
from promptopt.finetune import lora, stopwatch
from promptopt.finetune.resident import ResidentBase
from promptopt.finetune.rungs import RungPoint, kept_random_state
from promptopt.finetune.stopwatch import Stopwatch
from promptopt.finetune.train import finetune
from promptopt.records import FinetuneResult, LossPoint
from tests.finetune.bits import lora_bytes, structure, tensor_hashes
from tests.finetune.tiny_models import make_rows, write_rows

RECIPE = TrainingRecipe(
    rank=4, alpha=8, learning_rate=1e-2, epochs=2, batch_size=8, dropout=0.1, eval_per_epoch=2, patience=None
)
STEPS = [3, 6, 9, 12]
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def unbroken(
    base_dir: Path, train_file: Path, val_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[FinetuneResult, Path]:
    out = tmp_path_factory.mktemp("unbroken")
    return finetune(train_file, val_file, base_dir, RECIPE, out, 3), out


class Hook:
    """Notes its rungs and stops at one; spoils the random state on its way."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.rungs: list[RungPoint] = []
        self.stop_at = stop_at

    def __call__(self, rung: RungPoint) -> bool:
        import numpy as np
        import torch

        assert {"adapter_model.safetensors", "adapter_config.json"} <= {path.name for path in rung.lora_dir.iterdir()}
        self.rungs.append(rung)
        random.seed(0), np.random.seed(0), torch.manual_seed(0)
        random.random(), np.random.rand(), torch.rand(3)
        return rung.step == self.stop_at

    @property
    def steps(self) -> list[int]:
        return [rung.step for rung in self.rungs]


def test_every_evaluated_checkpoint_is_a_rung_and_training_does_not_feel_it(
    unbroken: tuple[FinetuneResult, Path], base_dir: Path, train_file: Path, val_file: Path, tmp_path: Path
) -> None:
    result, out = unbroken
    hook = Hook()
    # Checkpoints after every step: those without an evaluation are no rungs.
    judged = finetune(train_file, val_file, base_dir, RECIPE, tmp_path, 3, save_every_s=0.0, on_checkpoint=hook)
    assert hook.steps == STEPS
    evals = [(point.step, point.epoch, point.eval_loss) for point in result.history if point.eval_loss is not None]
    assert [(rung.step, rung.epoch, rung.eval_loss) for rung in hook.rungs] == evals[1:]
    assert {rung.total_steps for rung in hook.rungs} == {12}
    assert judged.model_copy(update={"wall_s": result.wall_s}) == result
    assert lora_bytes(tmp_path) == lora_bytes(out)


def test_the_hook_stops_training_and_that_is_remembered(
    unbroken: tuple[FinetuneResult, Path], base_dir: Path, train_file: Path, val_file: Path, tmp_path: Path
) -> None:
    hook = Hook(stop_at=6)
    result = finetune(train_file, val_file, base_dir, RECIPE, tmp_path, 3, on_checkpoint=hook)
    assert (hook.steps, result.steps, result.stopped_early) == ([3, 6], 6, True)
    assert result.history == tuple(point for point in unbroken[0].history if point.step <= 6)
    best = min(hook.rungs, key=lambda rung: rung.eval_loss)
    assert (result.best_step, result.best_eval_loss) == (best.step, best.eval_loss)
    checkpoint = tmp_path / "checkpoints" / f"checkpoint-{best.step}" / "adapter_model.safetensors"
    assert lora_bytes(tmp_path) == checkpoint.read_bytes()
    assert finetune(train_file, val_file, base_dir, RECIPE, tmp_path, 3, on_checkpoint=hook) == result
    assert hook.steps == [3, 6]


def test_a_kill_between_the_stop_and_the_result_stops_again(
    base_dir: Path, train_file: Path, val_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = finetune(train_file, val_file, base_dir, RECIPE, tmp_path / "whole", 3, on_checkpoint=Hook(6))

    def fail(*arguments: object) -> None:
        raise InterruptedError

    with monkeypatch.context() as patched, pytest.raises(InterruptedError):
        patched.setattr(lora, "publish_weights", fail)
        finetune(train_file, val_file, base_dir, RECIPE, tmp_path / "out", 3, on_checkpoint=Hook(6))
    hook = Hook(6)
    result = finetune(train_file, val_file, base_dir, RECIPE, tmp_path / "out", 3, on_checkpoint=hook)
    assert hook.steps == [6]
    assert result.model_copy(update={"wall_s": whole.wall_s}) == whole


@pytest.mark.parametrize("epochs", [2.0, 0.5], ids=["whole", "part"])
def test_nothing_is_trained_after_the_last_step(
    epochs: float, base_dir: Path, train_file: Path, val_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = RECIPE.model_copy(update={"epochs": epochs})
    last = round(6 * epochs)
    hook = Hook(stop_at=last)
    whole = finetune(train_file, val_file, base_dir, recipe, tmp_path / "whole", 3, on_checkpoint=hook)
    assert (whole.steps, whole.stopped_early) == (last, False)

    def die(rung: RungPoint) -> bool:
        if rung.step == last:
            raise InterruptedError
        return False

    with pytest.raises(InterruptedError):
        finetune(train_file, val_file, base_dir, recipe, tmp_path / "out", 3, on_checkpoint=die)
    hook = Hook()
    result = finetune(train_file, val_file, base_dir, recipe, tmp_path / "out", 3, on_checkpoint=hook)
    assert hook.steps == [last]
    assert result.model_copy(update={"wall_s": whole.wall_s}) == whole


KILLED = """
import os, signal, sys; from pathlib import Path; import torch; torch.set_num_threads(1)
from promptopt.config.recipe import TrainingRecipe; from promptopt.finetune.train import finetune
train, val, base, out, recipe = sys.argv[1:]
def hook(rung):
    print(rung.step, flush=True)
    if rung.step == 6: os.kill(os.getpid(), signal.SIGKILL)
    return False
finetune(Path(train), Path(val), Path(base), TrainingRecipe.model_validate_json(recipe), Path(out), 3,
         on_checkpoint=hook)
"""


def test_a_kill_leaves_out_no_rung(
    unbroken: tuple[FinetuneResult, Path], base_dir: Path, train_file: Path, val_file: Path, tmp_path: Path
) -> None:
    arguments = [str(train_file), str(val_file), str(base_dir), str(tmp_path), RECIPE.model_dump_json()]
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert killed.stdout.split() == ["3", "6"]
    hook = Hook()

    def break_off(point: LossPoint, total: int) -> None:
        if point.step == 8 and hook.steps == [6]:
            raise InterruptedError

    # On a resident base that has trained something else before.
    with ResidentBase(base_dir) as base:
        other = RECIPE.model_copy(update={"neftune_noise": 3.0, "epochs": 0.5})
        finetune(train_file, val_file, base_dir, other, tmp_path / "other", 9, resident=base)
        with pytest.raises(InterruptedError):
            finetune(
                train_file, val_file, base_dir, RECIPE, tmp_path, 3, break_off, save_every_s=0.0, resident=base,
                on_checkpoint=hook,
            )  # fmt: skip
        assert hook.steps == [6]
        # The checkpoint of step 7 has no evaluation, and that of step 6 was judged.
        hook = Hook()
        result = finetune(train_file, val_file, base_dir, RECIPE, tmp_path, 3, resident=base, on_checkpoint=hook)
    assert hook.steps == [9, 12]
    assert result.history == unbroken[0].history
    assert lora_bytes(tmp_path) == lora_bytes(unbroken[1])


@pytest.mark.parametrize("error", [MemoryError("llama.cpp"), KeyError("x"), RuntimeError("can't allocate memory")])
def test_what_the_hook_raises_comes_through_and_the_base_is_clean(
    error: Exception, base_dir: Path, train_file: Path, val_file: Path, tmp_path: Path
) -> None:
    def fail(rung: RungPoint) -> bool:
        raise error

    def seen(base: ResidentBase) -> tuple[Any, Any]:
        with base.lend() as loaded:
            return tensor_hashes(loaded.model), structure(loaded.model)

    with ResidentBase(base_dir) as base:
        before = seen(base)
        with pytest.raises(type(error)) as caught:
            finetune(train_file, val_file, base_dir, RECIPE, tmp_path, 3, resident=base, on_checkpoint=fail)
        assert caught.value is error
        assert not isinstance(caught.value, TrainingError)
        assert seen(base) == before


def test_patience_ends_the_training_after_its_rung(base_dir: Path, val_file: Path, tmp_path: Path) -> None:
    # Wrong answers: the model can only overfit, so the evaluation loss rises again.
    rows = [row.model_copy(update={"completion": "lamp"}) for row in make_rows(16, 5)]
    train_file = write_rows(tmp_path / "wrong.jsonl", rows)
    recipe = RECIPE.model_copy(update={"learning_rate": 3e-2, "epochs": 12, "patience": 2})
    hook = Hook()
    result = finetune(train_file, val_file, base_dir, recipe, tmp_path, 3, on_checkpoint=hook)
    assert result.stopped_early
    assert hook.steps[-1] == result.steps < 24


def test_the_random_state_comes_back_after_an_error_too() -> None:
    import numpy as np
    import torch

    def draw() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    with kept_random_state():
        expected = draw()
    with pytest.raises(KeyError), kept_random_state():
        draw()
        raise KeyError
    assert draw() == expected


def test_the_clock_stands_still_while_a_rung_is_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(stopwatch.time, "monotonic", lambda: now[0])
    clock = Stopwatch()
    with clock.paused():
        now[0] = 1.0
    assert clock.seconds == 0.0
    clock.set(10.0)
    clock.start()
    now[0] = 3.0
    with clock.paused():
        now[0] = 50.0
        assert clock.seconds == 12.0
    now[0] = 51.0
    assert clock.seconds == 13.0
    clock.stop()
    now[0] = 99.0
    assert clock.seconds == 13.0
