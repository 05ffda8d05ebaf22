"""`finetune` learns, keeps the best, repeats itself exactly, and goes on after a kill as if nothing had happened."""

import gc
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from safetensors import SafetensorError

from promptopt.config.recipe import TrainingRecipe
from promptopt.errors import TrainingError
from promptopt.finetune.checkpoints import newest_complete
from promptopt.finetune.selftest import require_selftest
from promptopt.finetune.train import finetune
from promptopt.finetune.watch import TrainingMoment
from promptopt.records import FinetuneResult, LossPoint
from tests.finetune.tiny_models import make_base, make_rows, write_rows

# Dropout is on, so that the random state matters to determinism and to going on after a kill.
RECIPE = TrainingRecipe(
    rank=8, alpha=16, learning_rate=1e-2, epochs=3, batch_size=8, dropout=0.05, eval_per_epoch=1, patience=None
)
ROOT = Path(__file__).resolve().parents[2]


def _note_step(steps: list[int], point: LossPoint, total: int) -> None:
    steps.append(point.step)


def _evals(result: FinetuneResult) -> list[tuple[int, float]]:
    return [(point.step, point.eval_loss) for point in result.history if point.eval_loss is not None]


@pytest.fixture(scope="module")
def unbroken(
    base_dir: Path, train_file: Path, val_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[FinetuneResult, Path, list[tuple[TrainingMoment, int]]]:
    out = tmp_path_factory.mktemp("unbroken")
    seen: list[tuple[TrainingMoment, int]] = []
    result = finetune(train_file, val_file, base_dir, RECIPE, out, 7, lambda point, total: seen.append((point, total)))
    return result, out, seen


def test_the_loss_falls_and_everything_is_recorded(
    unbroken: tuple[FinetuneResult, Path, list[tuple[TrainingMoment, int]]], base_dir: Path
) -> None:
    result, out, seen = unbroken
    evals = _evals(result)
    assert [step for step, _ in evals] == [0, 6, 12, 18]
    assert evals[-1][1] < 0.25 * evals[0][1]
    assert (result.steps, result.epochs, result.train_rows, result.val_rows) == (18, 3.0, 48, 12)
    assert (result.device, result.base_quantization) in {("cpu", "nf4, dequantised in memory"), ("cuda", "nf4")}
    assert result.trained_tokens % 3 == 0 < result.trained_tokens
    assert [moment.point for moment, _ in seen] == list(result.history)
    assert {total for _, total in seen} == {18}
    assert FinetuneResult.model_validate_json((out / "result.json").read_text(encoding="utf-8")) == result
    config = json.loads((out / "lora" / "adapter_config.json").read_text(encoding="utf-8"))
    assert (config["r"], config["lora_alpha"]) == (8, 16)
    assert sorted(path.name for path in (out / "lora").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]


def test_a_finished_run_is_returned_and_other_inputs_start_over(
    unbroken: tuple[FinetuneResult, Path, list[tuple[TrainingMoment, int]]],
    base_dir: Path,
    train_file: Path,
    val_file: Path,
    tmp_path: Path,
) -> None:
    result, out, _ = unbroken
    copy = Path(shutil.copytree(out, tmp_path / "copy"))
    before = (copy / "result.json").stat().st_mtime_ns
    assert finetune(train_file, val_file, base_dir, RECIPE, copy, 7) == result
    assert (copy / "result.json").stat().st_mtime_ns == before
    other = finetune(train_file, val_file, base_dir, RECIPE.model_copy(update={"epochs": 0.5}), copy, 7)
    assert other.steps == 3


def test_two_runs_are_equal_and_packed_weights_train_like_dequantised_ones(
    unbroken: tuple[FinetuneResult, Path, list[tuple[TrainingMoment, int]]],
    base_dir: Path,
    train_file: Path,
    val_file: Path,
    tmp_path: Path,
) -> None:
    result, out, _ = unbroken
    again = finetune(train_file, val_file, base_dir, RECIPE, tmp_path / "again", 7)
    assert again.history == result.history
    weights = "lora/adapter_model.safetensors"
    assert (tmp_path / "again" / weights).read_bytes() == (out / weights).read_bytes()
    packed = finetune(train_file, val_file, base_dir, RECIPE, tmp_path / "packed", 7, residency="packed")
    assert packed.base_quantization == "nf4"
    for (step, loss), (_, expected) in zip(_evals(packed), _evals(result), strict=True):
        assert loss == pytest.approx(expected, rel=1e-3), step


def test_a_run_killed_in_the_middle_ends_like_an_unbroken_one(
    unbroken: tuple[FinetuneResult, Path, list[tuple[TrainingMoment, int]]],
    base_dir: Path,
    train_file: Path,
    val_file: Path,
    tmp_path: Path,
) -> None:
    result, _, _ = unbroken
    out = tmp_path / "killed"
    code = (
        "import os, signal, sys; from pathlib import Path; import torch; torch.set_num_threads(1)\n"
        "from promptopt.config.recipe import TrainingRecipe; from promptopt.finetune.train import finetune\n"
        "train, val, base, out, recipe = sys.argv[1:]\n"
        "def die(point, total):\n"
        "    if point.step == 9: os.kill(os.getpid(), signal.SIGKILL)\n"
        "finetune(Path(train), Path(val), Path(base), TrainingRecipe.model_validate_json(recipe), Path(out), 7, die,\n"
        "         save_every_s=0.0)\n"
    )
    arguments = [str(train_file), str(val_file), str(base_dir), str(out), RECIPE.model_dump_json()]
    killed = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (out / "result.json").exists()
    newest = newest_complete(out / "checkpoints")
    assert newest is not None
    assert newest[1].step == 8
    torn = Path(shutil.copytree(out, tmp_path / "torn"))
    (torn / "checkpoints" / "checkpoint-8" / "optimizer.pt").write_bytes(b"torn")

    for folder, first_step in ((out, 9), (torn, 7)):
        seen: list[int] = []
        report = partial(_note_step, seen)
        resumed = finetune(train_file, val_file, base_dir, RECIPE, folder, 7, report)
        assert seen[0] == first_step
        # The same machine, threads and library: equal to the last bit, the random state of dropout included.
        assert resumed.history == result.history
        assert (resumed.best_step, resumed.trained_tokens) == (result.best_step, result.trained_tokens)


def test_the_best_checkpoint_is_kept_and_training_stops_early(base_dir: Path, val_file: Path, tmp_path: Path) -> None:
    # Wrong answers: the model can only overfit, so the evaluation loss rises again.
    rows = [row.model_copy(update={"completion": "lamp"}) for row in make_rows(16, 5)]
    train_file = write_rows(tmp_path / "wrong.jsonl", rows)
    recipe = RECIPE.model_copy(update={"epochs": 12, "learning_rate": 3e-2, "patience": 2, "eval_per_epoch": 2})
    result = finetune(train_file, val_file, base_dir, recipe, tmp_path / "out", 1)
    evals = dict(_evals(result))
    assert result.stopped_early
    assert result.steps < 24
    assert result.best_eval_loss == min(loss for step, loss in evals.items() if step > 0) == evals[result.best_step]
    assert result.steps - result.best_step == 4  # 2 epochs of 2 evaluations, one step each
    best = tmp_path / "out" / "checkpoints" / f"checkpoint-{result.best_step}" / "adapter_model.safetensors"
    assert best.read_bytes() == (tmp_path / "out" / "lora" / "adapter_model.safetensors").read_bytes()


def _models_in_memory() -> int:
    from transformers import PreTrainedModel

    gc.collect()
    # type(), not isinstance(): asking every object for its __class__ wakes torch's deprecated names.
    return sum(issubclass(type(item), PreTrainedModel) for item in gc.get_objects())


def test_no_model_is_left_in_memory_and_the_base_is_untouched(
    base_dir: Path, train_file: Path, val_file: Path, tmp_path: Path
) -> None:
    before, files = _models_in_memory(), sorted(base_dir.iterdir())
    recipe = RECIPE.model_copy(update={"epochs": 0.2})
    finetune(train_file, val_file, base_dir, recipe, tmp_path / "out", 0, residency="packed")
    assert _models_in_memory() == before
    assert sorted(base_dir.iterdir()) == files


def test_a_diverging_loss_stops_the_run(base_dir: Path, train_file: Path, val_file: Path, tmp_path: Path) -> None:
    recipe = RECIPE.model_copy(update={"alpha": 1e40})
    with pytest.raises(TrainingError, match="diverged"):
        finetune(train_file, val_file, base_dir, recipe, tmp_path / "out", 0)


def test_shared_rows_and_long_rows_stop_before_training(base_dir: Path, train_file: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="48 of 48"):
        finetune(train_file, train_file, base_dir, RECIPE, tmp_path / "out", 0)
    val = write_rows(tmp_path / "val.jsonl", make_rows(4, 9, words=4))
    with pytest.raises(TrainingError, match="longer than 16"):
        finetune(train_file, val, base_dir, RECIPE.model_copy(update={"max_length": 16}), tmp_path / "out", 0)


def test_a_failing_self_test_stops_the_run(
    base_dir: Path, train_file: Path, val_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import bitsandbytes as bnb

    require_selftest.cache_clear()  # it passed in this process before
    forward = bnb.nn.Linear4bit.forward
    monkeypatch.setattr(bnb.nn.Linear4bit, "forward", lambda layer, x: forward(layer, x).detach())
    with pytest.raises(TrainingError, match="self-test failed"):
        finetune(train_file, val_file, base_dir, RECIPE, tmp_path / "out", 0)


@pytest.mark.parametrize(("weights", "cause"), [(0.5, SafetensorError), (1.5, RuntimeError)])
def test_a_full_disk_keeps_the_finished_checkpoints(
    weights: float, cause: type[Exception], base_dir: Path, train_file: Path, val_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(point: LossPoint, total: int) -> None:
        if point.step == 7:
            # Files that end early, which both libraries really meet: of the LoRA weights, or of the optimizer's state,
            # which is twice as large.
            size = (out / "checkpoints" / "checkpoint-6" / "adapter_model.safetensors").stat().st_size
            resource.setrlimit(resource.RLIMIT_FSIZE, (int(weights * size), before[1]))

    recipe = RECIPE.model_copy(update={"epochs": 2})
    try:
        with pytest.raises(TrainingError, match=r"checkpoint-12 could not be written: .*Finished") as caught:
            finetune(train_file, val_file, base_dir, recipe, out, 7, fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert isinstance(caught.value.__cause__, cause)
    seen: list[int] = []
    assert finetune(train_file, val_file, base_dir, recipe, out, 7, partial(_note_step, seen)).steps == 12
    assert seen[0] == 7


def test_memory_that_runs_out_while_saving_is_not_a_full_disk(
    base_dir: Path, train_file: Path, val_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from transformers import Trainer

    def fail(*arguments: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(Trainer, "_save_checkpoint", fail)
    recipe = RECIPE.model_copy(update={"epochs": 0.5})
    with pytest.raises(TrainingError, match="Memory ran out"):
        finetune(train_file, val_file, base_dir, recipe, tmp_path / "out", 7)


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"base_quantization": "none", "target_modules": "attention", "rslora": True},
        {"base_quantization": "fp4", "target_modules": "mlp", "neftune_noise": 1.0, "gradient_accumulation": 2},
        {"loss": "dft", "gradient_checkpointing": True},
        {"packing": True, "batch_size": 2, "max_length": 128},
    ],
    ids=["unquantized", "fp4", "dft", "packing"],
)
def test_every_recipe_trains_a_qwen2(
    changes: dict[str, object], train_file: Path, val_file: Path, tmp_path: Path
) -> None:
    base = make_base(tmp_path / "qwen2", "qwen2")
    recipe = TrainingRecipe.model_validate({**RECIPE.model_dump(), **changes})
    result = finetune(train_file, val_file, base, recipe, tmp_path / "out", 3, residency="packed")
    evals = _evals(result)
    # DFT weighs a token by its probability, so an untrained model learns slowly from it.
    assert evals[-1][1] < (0.9 if recipe.loss == "dft" else 0.6) * evals[0][1]
    assert result.base_quantization == recipe.base_quantization
