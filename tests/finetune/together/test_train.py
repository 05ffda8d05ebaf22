"""Trainings that share a forward end as `finetune` ends them one at a time, and do not know of each other."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from promptopt.config.recipe import TrainingRecipe
from promptopt.errors import DataError, TrainingError
from promptopt.finetune.checkpoints import newest_complete
from promptopt.finetune.resident import ResidentBase
from promptopt.finetune.rungs import Judgement, RungPoint
from promptopt.finetune.together.train import TrainingRequest, alone_because, finetune_together
from promptopt.finetune.train import finetune
from promptopt.finetune.watch import TrainingMoment
from promptopt.records import FinetuneResult
from tests.finetune.tiny_models import make_rows, write_rows

LOSS_TOLERANCE = 1e-5
"""Relative, of every loss of a whole training of about 20 steps: rounding differs at every step and adds up. The most
that was measured is 1.1e-6."""

FIRST = TrainingRecipe(rank=8, alpha=16, learning_rate=1e-2, epochs=3, batch_size=8, patience=None)
RECIPES = (
    FIRST,
    TrainingRecipe(
        rank=4, alpha=16, rslora=True, learning_rate=3e-3, epochs=2, batch_size=4, gradient_accumulation=3,
        weight_decay=0.1, warmup_share=0.3, target_modules="attention", loss="dft", eval_per_epoch=2, patience=None,
        gradient_checkpointing=True,
    ),
    TrainingRecipe(rank=16, learning_rate=2e-3, epochs=0.5, batch_size=2, max_grad_norm=0.1, patience=None),
)  # fmt: skip
NOISY = FIRST.model_copy(update={"dropout": 0.1, "neftune_noise": 5.0})
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def resident(base_dir: Path) -> ResidentBase:
    return ResidentBase(base_dir)


@pytest.fixture(scope="module")
def other_rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("rows") / "other.jsonl", make_rows(30, 5, words=3))


def _only(outcomes: "tuple[FinetuneResult | TrainingError | DataError, ...]") -> list[FinetuneResult]:
    assert all(isinstance(one, FinetuneResult) for one in outcomes), outcomes
    return [one for one in outcomes if isinstance(one, FinetuneResult)]


def _history(result: FinetuneResult) -> list[tuple[int, float, str]]:
    return [
        (point.step, round(point.epoch, 6), "loss" if point.loss is not None else "eval") for point in result.history
    ]


def _same(one: FinetuneResult, other: FinetuneResult, tolerance: float = LOSS_TOLERANCE) -> None:
    assert _history(one) == _history(other)
    for mine, theirs in zip(one.history, other.history, strict=True):
        for name in ("loss", "eval_loss", "learning_rate"):
            assert (getattr(mine, name) or 0.0) == pytest.approx(getattr(theirs, name) or 0.0, rel=tolerance), mine
    left_out = {"history", "wall_s", "best_eval_loss"}
    assert one.model_dump(exclude=left_out) == other.model_dump(exclude=left_out)


def test_each_ends_as_it_would_alone(
    base_dir: Path, train_file: Path, val_file: Path, other_rows: Path, resident: ResidentBase, tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    trained_on = (train_file, other_rows, train_file)
    seen: list[tuple[TrainingMoment, int]] = []
    requests = [
        TrainingRequest(rows, val_file, recipe, tmp_path / f"together{number}", number)
        for number, (rows, recipe) in enumerate(zip(trained_on, RECIPES, strict=True))
    ]
    requests[1] = TrainingRequest(
        other_rows, val_file, RECIPES[1], requests[1].out_dir, 1, lambda *moment: seen.append(moment)
    )
    together = _only(finetune_together(requests, base_dir, resident=resident, at_once=2))
    assert tuple(moment.point for moment, _ in seen) == together[1].history
    for number, (rows, recipe) in enumerate(zip(trained_on, RECIPES, strict=True)):
        alone = finetune(rows, val_file, base_dir, recipe, tmp_path / f"alone{number}", number, resident=resident)
        _same(together[number], alone)
        folders = [tmp_path / f"{kind}{number}" for kind in ("together", "alone")]
        assert [sorted(path.name for path in (folder / "lora").iterdir()) for folder in folders] == [
            ["adapter_config.json", "adapter_model.safetensors"]
        ] * 2
        configs = [json.loads((folder / "lora" / "adapter_config.json").read_text()) for folder in folders]
        for config in configs:
            config["target_modules"].sort()
        assert configs[0] == configs[1]
        mine, theirs = (load_file(folder / "lora" / "adapter_model.safetensors") for folder in folders)
        assert mine.keys() == theirs.keys()
        # One that is finished is finished for both.
        assert finetune(rows, val_file, base_dir, recipe, folders[0], number, resident=resident) == together[number]
    assert finetune_together(requests, base_dir, resident=resident) == tuple(together)


def test_neither_dropout_nor_noise_depends_on_the_others(
    base_dir: Path, train_file: Path, val_file: Path, other_rows: Path, resident: ResidentBase, tmp_path: Path
) -> None:
    noisy = TrainingRequest(train_file, val_file, NOISY, tmp_path / "alone", 7)
    beside = TrainingRequest(train_file, val_file, NOISY, tmp_path / "beside", 7)
    long = TrainingRequest(other_rows, val_file, RECIPES[1], tmp_path / "other", 1)
    (alone,) = _only(finetune_together([noisy], base_dir, resident=resident))
    _, together = _only(finetune_together([long, beside], base_dir, resident=resident))
    _same(together, alone)
    assert alone.history[-1].eval_loss is not None and alone.history[0].eval_loss is not None
    assert alone.history[-1].eval_loss < 0.5 * alone.history[0].eval_loss


def test_one_that_is_stopped_or_fails_leaves_the_others_alone(
    base_dir: Path, train_file: Path, val_file: Path, resident: ResidentBase, tmp_path: Path
) -> None:
    rungs: list[RungPoint] = []

    def stop(rung: RungPoint) -> bool:
        rungs.append(rung)
        return rung.step == 12

    wild = FIRST.model_copy(update={"alpha": 1e40})
    long = FIRST.model_copy(update={"max_length": 16})
    plain, stopped, diverged, too_long, unread = finetune_together(
        [
            TrainingRequest(train_file, val_file, FIRST, tmp_path / "plain", 7),
            TrainingRequest(train_file, val_file, FIRST, tmp_path / "stopped", 7, on_checkpoint=stop),
            TrainingRequest(train_file, val_file, wild, tmp_path / "wild", 7),
            TrainingRequest(train_file, val_file, long, tmp_path / "long", 7),
            TrainingRequest(tmp_path / "none.jsonl", val_file, FIRST, tmp_path / "unread", 7),
        ],
        base_dir,
        resident=resident,
    )
    assert isinstance(plain, FinetuneResult) and (plain.steps, plain.stopped_early) == (18, False)
    assert isinstance(stopped, FinetuneResult) and (stopped.steps, stopped.stopped_early) == (12, True)
    assert [rung.step for rung in rungs] == [6, 12]
    for mine, theirs in zip(stopped.history, plain.history[: len(stopped.history)], strict=True):
        assert (mine.loss or 0.0) == pytest.approx(theirs.loss or 0.0, rel=LOSS_TOLERANCE)
        assert (mine.eval_loss or 0.0) == pytest.approx(theirs.eval_loss or 0.0, rel=LOSS_TOLERANCE)
    assert isinstance(diverged, TrainingError) and "training has diverged" in str(diverged)
    assert isinstance(too_long, TrainingError) and "longer than 16 tokens" in str(too_long)
    assert isinstance(unread, DataError)
    assert not (tmp_path / "wild" / "result.json").exists()


def test_killed_trainings_go_on_together_or_alone(
    base_dir: Path, train_file: Path, val_file: Path, resident: ResidentBase, tmp_path: Path
) -> None:
    recipes = (NOISY, FIRST)
    code = (
        "import os, signal, sys; from pathlib import Path; import torch; torch.set_num_threads(1)\n"
        "from promptopt.config.recipe import TrainingRecipe\n"
        "from promptopt.finetune.together.train import TrainingRequest, finetune_together\n"
        "train, val, base, out, *recipes = sys.argv[1:]\n"
        "def die(point, total):\n"
        "    if point.step == 9: os.kill(os.getpid(), signal.SIGKILL)\n"
        "finetune_together([TrainingRequest(Path(train), Path(val), TrainingRecipe.model_validate_json(recipe),\n"
        "    Path(out) / str(number), 7, die) for number, recipe in enumerate(recipes)], Path(base))\n"
    )
    texts = [recipe.model_dump_json() for recipe in recipes]
    done = subprocess.run(
        [sys.executable, "-c", code, train_file, val_file, base_dir, tmp_path / "killed", *texts],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    for number in range(2):
        newest = newest_complete(tmp_path / "killed" / str(number) / "checkpoints")
        assert newest is not None and newest[1].step == 6
    shutil.copytree(tmp_path / "killed", tmp_path / "copy")

    def request(number: int, folder: str) -> TrainingRequest:
        return TrainingRequest(train_file, val_file, recipes[number], tmp_path / folder / str(number), 7)

    unbroken = _only(finetune_together([request(0, "whole"), request(1, "whole")], base_dir, resident=resident))
    again = _only(finetune_together([request(0, "killed"), request(1, "killed")], base_dir, resident=resident))
    assert [one.history for one in again] == [one.history for one in unbroken]
    # `finetune` takes up what a shared training left, and the other way round.
    out = tmp_path / "copy" / "1"
    _same(finetune(train_file, val_file, base_dir, FIRST, out, 7, resident=resident), unbroken[1])


def test_a_training_begun_alone_goes_on_together(
    base_dir: Path, train_file: Path, val_file: Path, resident: ResidentBase, tmp_path: Path
) -> None:
    class Killed(Exception):
        pass

    def die(rung: RungPoint) -> bool:
        raise Killed

    with pytest.raises(Killed):
        finetune(train_file, val_file, base_dir, FIRST, tmp_path / "one", 7, resident=resident, on_checkpoint=die)
    requests = [
        TrainingRequest(train_file, val_file, FIRST, tmp_path / "one", 7),
        TrainingRequest(train_file, val_file, FIRST, tmp_path / "two", 7),
    ]
    one, two = _only(finetune_together(requests, base_dir, resident=resident))
    _same(one, two)


def test_the_best_by_metric_is_kept_alone_and_together(
    base_dir: Path, train_file: Path, val_file: Path, resident: ResidentBase, tmp_path: Path
) -> None:
    recipe = FIRST.model_copy(update={"best_by": "metric", "patience": 1})
    judge = lambda rung: Judgement(metric=1.0 / rung.step)  # noqa: E731
    seen: list[TrainingMoment] = []
    request = TrainingRequest(
        train_file, val_file, recipe, tmp_path / "one", 7, lambda moment, steps: seen.append(moment), judge
    )
    (together,) = _only(finetune_together([request], base_dir, resident=resident))
    alone = finetune(
        train_file, val_file, base_dir, recipe, tmp_path / "two", 7, resident=resident, on_checkpoint=judge
    )
    _same(together, alone)
    assert together.best_step < together.steps
    assert together.best_metric == 1.0 / together.best_step
    assert together.stopped_early
    assert next(moment.metric for moment in seen if moment.metric is not None) == together.best_metric
    assert seen[-1].tokens_per_s is not None


def test_what_does_not_fit_is_refused(base_dir: Path, train_file: Path, val_file: Path, tmp_path: Path) -> None:
    def request(recipe: TrainingRecipe, name: str) -> TrainingRequest:
        return TrainingRequest(train_file, val_file, recipe, tmp_path / name, 7)

    with pytest.raises(TrainingError, match="folder of its own"):
        finetune_together([request(FIRST, "a"), request(NOISY, "a")], base_dir)
    with pytest.raises(TrainingError, match="sets packing"):
        finetune_together([request(FIRST.model_copy(update={"packing": True}), "a")], base_dir)
    other = FIRST.model_copy(update={"base_quantization": "none"})
    with pytest.raises(TrainingError, match="nf4 and none"):
        finetune_together([request(FIRST, "a"), request(other, "b")], base_dir)
    with pytest.raises(TrainingError, match="nobody measures the metric"):
        finetune_together([request(FIRST.model_copy(update={"best_by": "metric"}), "a")], base_dir)
    assert finetune_together([], base_dir) == ()


def test_a_recipe_with_a_field_that_is_not_known_here_is_trained_alone() -> None:
    class Later(TrainingRecipe):
        method: str = "sft"

    assert alone_because(FIRST) == ""
    assert alone_because(Later()) == ""
    assert alone_because(Later(method="causal")) == "method"
