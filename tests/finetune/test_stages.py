"""Stages go on from each other's weights, and a kill in the middle costs nothing that was finished."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from promptopt.config.methods import Causal, Labels, SelfDistill
from promptopt.config.recipe import TrainingRecipe
from promptopt.errors import ConfigError, TrainingError
from promptopt.finetune.stages import StageRun, finetune_stages
from promptopt.records import FinetuneResult, LossPoint
from tests.finetune.tiny_models import make_documents, make_rows, make_teaching_rows, write_rows

ROOT = Path(__file__).resolve().parents[2]
RECIPE = TrainingRecipe(rank=4, alpha=8, learning_rate=1e-2, epochs=1, batch_size=4, patience=None, max_length=128)


def make_stages(folder: Path) -> list[StageRun]:
    """Return documents, then labels, then self-distillation, each with its rows, recipe and seed."""
    documents = make_documents(8)
    teaching = make_teaching_rows(12, 5)
    return [
        StageRun(
            write_rows(folder / "dt.jsonl", documents[:6]),
            write_rows(folder / "dv.jsonl", documents[6:]),
            Causal(),
            RECIPE.model_copy(update={"batch_size": 1}),
            1,
        ),
        StageRun(
            write_rows(folder / "t.jsonl", make_rows(16, 1)), write_rows(folder / "v.jsonl", make_rows(4, 2)), Labels(),
            RECIPE, 2,
        ),
        StageRun(
            write_rows(folder / "st.jsonl", teaching[:8]), write_rows(folder / "sv.jsonl", teaching[8:]),
            SelfDistill(max_answer_tokens=4), RECIPE.model_copy(update={"learning_rate": 1e-3}), 3,
        ),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> list[StageRun]:
    return make_stages(tmp_path_factory.mktemp("stages"))


@pytest.fixture(scope="module")
def unbroken(
    base_dir: Path, stages: list[StageRun], tmp_path_factory: pytest.TempPathFactory
) -> tuple[FinetuneResult, Path]:
    out = tmp_path_factory.mktemp("unbroken")
    return finetune_stages(stages, base_dir, out), out


def _before(result: FinetuneResult) -> float:
    (loss,) = [point.eval_loss for point in result.history if point.step == 0]
    assert loss is not None
    return loss


def test_every_stage_is_recorded_and_goes_on_from_the_one_before(
    unbroken: tuple[FinetuneResult, Path], base_dir: Path, stages: list[StageRun], tmp_path: Path
) -> None:
    result, out = unbroken
    assert [stage.method for stage in result.stages] == ["causal", "labels", "self_distill"]
    assert result.model_copy(update={"stages": ()}) == result.stages[-1]
    assert FinetuneResult.model_validate_json((out / "result.json").read_text(encoding="utf-8")) == result
    weights = "lora/adapter_model.safetensors"
    assert (out / weights).read_bytes() == (out / "stages" / "3-self_distill" / weights).read_bytes()
    # The labels alone begin at another loss than after the documents.
    alone = finetune_stages([stages[1]], base_dir, tmp_path)
    assert (alone.stages, (tmp_path / "stages").exists()) == ((), False)
    assert abs(_before(alone) - _before(result.stages[1])) > 1e-3


def test_killed_in_the_second_stage_it_ends_like_an_unbroken_run(
    unbroken: tuple[FinetuneResult, Path], base_dir: Path, stages: list[StageRun], tmp_path: Path
) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; import torch; torch.set_num_threads(1)\n"
        "from tests.finetune.test_stages import make_stages; from promptopt.finetune.stages import finetune_stages\n"
        "def die(stage, point, total):\n"
        "    if (stage, point.step) == (1, 3): os.kill(os.getpid(), signal.SIGKILL)\n"
        "folder = Path(sys.argv[1])\n"
        "finetune_stages(make_stages(folder), Path(sys.argv[2]), folder / 'out', die, save_every_s=0.0)\n"
    )
    killed = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), str(base_dir)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    seen: list[tuple[int, int]] = []

    def note(stage: int, point: LossPoint, total: int) -> None:
        seen.append((stage, point.step))

    resumed = finetune_stages(make_stages(tmp_path), base_dir, tmp_path / "out", note)
    assert seen[0] == (1, 3)
    assert [stage.history for stage in resumed.stages] == [stage.history for stage in unbroken[0].stages]


def test_another_first_stage_starts_the_later_ones_over(
    unbroken: tuple[FinetuneResult, Path], base_dir: Path, stages: list[StageRun], tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(unbroken[1], tmp_path / "copy"))
    seen: list[tuple[int, int]] = []
    changed = StageRun(stages[0].train_rows, stages[0].val_rows, Causal(), stages[0].recipe, 9)
    finetune_stages([changed, stages[1]], base_dir, copy, lambda stage, point, _: seen.append((stage, point.step)))
    assert {(0, 0), (1, 0)} <= set(seen)
    seen.clear()
    finetune_stages([changed, stages[1]], base_dir, copy, lambda stage, point, _: seen.append((stage, point.step)))
    assert not seen


def test_weights_of_another_shape_and_wrong_arguments_are_refused(
    base_dir: Path, stages: list[StageRun], tmp_path: Path
) -> None:
    def with_recipe(**changes: object) -> StageRun:
        recipe = RECIPE.model_copy(update={"epochs": 0.25, **changes})
        return StageRun(stages[1].train_rows, stages[1].val_rows, Labels(), recipe, 2)

    with pytest.raises(TrainingError, match="do not fit this recipe"):
        finetune_stages([with_recipe(), with_recipe(rank=8)], base_dir, tmp_path / "rank")
    with pytest.raises(TrainingError, match=r"do not fit .*the scale"):
        finetune_stages([with_recipe(), with_recipe(alpha=2.0)], base_dir, tmp_path / "rank")
    with pytest.raises(ConfigError, match="nonsense"):
        wrong = with_recipe(trainer_args={"nonsense": 1})
        finetune_stages([with_recipe(), wrong], base_dir, tmp_path / "arguments")
    assert not (tmp_path / "arguments").exists()
    with pytest.raises(TrainingError, match="at least one stage"):
        finetune_stages([], base_dir, tmp_path)
