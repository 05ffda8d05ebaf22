"""What is chosen for a GPU, as far as a machine without one can tell."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from promptopt.config.recipe import TrainingRecipe
from promptopt.errors import TrainingError
from promptopt.finetune.arguments import optimizer_name, sft_arguments
from promptopt.finetune.base_model import _attention, quiet_libraries
from promptopt.finetune.resident import ResidentBase


@pytest.mark.parametrize(
    ("device", "quantization", "name"),
    [("cuda", "nf4", "paged_adamw_8bit"), ("cuda", "none", "adamw_torch"), ("cpu", "nf4", "adamw_torch")],
)
def test_the_optimizer_is_one_that_the_trainer_knows(device: str, quantization: str, name: str) -> None:
    from transformers.training_args import OptimizerNames

    recipe = TrainingRecipe.model_validate({"base_quantization": quantization})
    assert OptimizerNames(optimizer_name(recipe, device)).value == name


@pytest.mark.parametrize(
    ("device", "installed", "expected"),
    [("cuda", True, "flash_attention_2"), ("cuda", False, None), ("cpu", True, None)],
)
def test_flash_attention_is_taken_where_it_is_installed(device: str, installed: bool, expected: str | None) -> None:
    transformers = SimpleNamespace(utils=SimpleNamespace(is_flash_attn_2_available=lambda: installed))
    assert _attention(transformers, device) == expected


def test_a_batch_is_what_the_recipe_says(tmp_path: Path) -> None:
    with quiet_libraries():
        arguments = sft_arguments(TrainingRecipe(batch_size=3), tmp_path, 0, "cpu", 64, fresh=True, packed=False)
    assert arguments.train_batch_size == 3


def test_several_processes_are_refused(base_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(TrainingError, match="one of 2 processes"):
        ResidentBase(base_dir)
    monkeypatch.setenv("WORLD_SIZE", "1")
    ResidentBase(base_dir).close()
