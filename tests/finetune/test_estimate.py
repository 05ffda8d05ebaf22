"""Estimates of memory and time, against what torch really keeps and counts."""

from pathlib import Path

import pytest

from promptopt.config.recipe import TrainingRecipe
from promptopt.errors import ConfigError
from promptopt.finetune.base_model import load_base, quiet_libraries
from promptopt.finetune.estimate import Machine, RowLengths, estimate_training, training_memory
from promptopt.finetune.fitting import possible_changes
from promptopt.finetune.gpus import GPUS, find_gpu
from promptopt.finetune.model_shape import ModelShape, read_shape, shape_of
from promptopt.finetune.this_machine import of_gpu

LLAMA_8B = shape_of(
    {
        "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": 8, "vocab_size": 128256, "max_position_embeddings": 131072,
    }
)  # fmt: skip
CPU = Machine("cpu", "cpu", 16 * 2**30, 1e11, 1e10)
CARD = of_gpu(find_gpu("rtx 4090"))


def test_the_shape_is_that_of_the_loaded_model(base_dir: Path) -> None:
    from promptopt.finetune import lora

    shape = read_shape(base_dir)
    model = load_base(base_dir, "none").model
    assert shape.parameters == sum(parameter.numel() for parameter in model.parameters())
    for targets in ("all-linear", "attention", "mlp"):
        recipe = TrainingRecipe(rank=4, target_modules=targets)
        with quiet_libraries():
            wrapped = lora.add_lora(load_base(base_dir, "none").model, recipe, 0)
        assert shape.lora_parameters(4, recipe.target_modules) == lora.trainable_count(wrapped)


def test_published_sizes_come_out() -> None:
    assert pytest.approx(8.03e9, rel=1e-3) == LLAMA_8B.parameters
    assert LLAMA_8B.kv_bytes_per_token == 131072
    # QLoRA's table of trainable parameters: r 64 on all layers of a 7B model is 160M (arXiv 2305.14314).
    seven = shape_of(
        {
            "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32,
            "vocab_size": 32000,
        }
    )  # fmt: skip
    assert seven.lora_parameters(64, "all-linear") == pytest.approx(160e6, rel=0.01)


@pytest.mark.parametrize("targets", ["all-linear", "attention"])
def test_activations_are_what_autograd_keeps(base_dir: Path, targets: str) -> None:
    import torch

    from promptopt.finetune import lora

    recipe = TrainingRecipe.model_validate({"rank": 4, "target_modules": targets})
    with quiet_libraries():
        model = lora.add_lora(load_base(base_dir, "none", device="cpu").model, recipe, 0)
    known = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}
    alive = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        alive.append(tensor)
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    ids = torch.randint(0, 300, (4, 96))
    mask = torch.ones_like(ids)
    mask[0, -5:] = 0
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(input_ids=ids, attention_mask=mask, use_cache=False, logits_to_keep=1)
    shape, rows = read_shape(base_dir), RowLengths(4, 96, 96, 8, 8)
    recipe = recipe.model_copy(update={"batch_size": 4})
    found = training_memory(shape, recipe, rows, CPU, unpacked=True)["activations"]
    turning = 4 * 96 * (12 * 64 + 7.5 * 64 + 10.5 * 32 + 6 * 128) * 4 / 2
    assert found - turning == pytest.approx(sum(kept.values()), rel=0.2)


def _estimate(machine: Machine = CARD, shape: ModelShape = LLAMA_8B, **recipe: object) -> float:
    rows = RowLengths(1000, 1024, 800, 64, 40)
    return estimate_training(shape, TrainingRecipe.model_validate({"max_length": 2048, **recipe}), rows, machine).bytes


def test_every_way_to_save_memory_saves_some() -> None:
    plain = _estimate(batch_size=4)
    assert _estimate(batch_size=4, gradient_checkpointing=True) < 0.6 * plain
    assert _estimate(batch_size=1, gradient_accumulation=4) < 0.6 * plain
    assert _estimate(batch_size=4, base_quantization="none") - plain > 9e9
    assert _estimate(batch_size=4, max_length=512) < plain
    assert _estimate(batch_size=4, rank=64) > plain


def test_changes_are_offered_with_what_they_come_to() -> None:
    rows = RowLengths(1000, 4000, 800, 64, 40)
    recipe = TrainingRecipe(batch_size=8, max_length=4096, base_quantization="none")
    changes = possible_changes(LLAMA_8B, recipe, rows, CARD)
    texts = [change.text for change in changes]
    assert texts == [
        "gradient_checkpointing: true", "batch_size: 1, gradient_accumulation: 8", "base_quantization: nf4",
        "max_length: 1216", "all of these",
    ]  # fmt: skip
    last = changes[-1]
    assert last.fits
    assert last.recipe.gradient_checkpointing
    assert last.recipe.batch_size * last.recipe.gradient_accumulation == 8
    assert last.estimate.bytes < min(change.estimate.bytes for change in changes[:-1])
    assert not changes[0].fits


def test_time_follows_tokens_and_the_second_forward_pass() -> None:
    rows = RowLengths(1000, 1024, 800, 64, 40)
    recipe = TrainingRecipe(epochs=2, batch_size=4, gradient_accumulation=2)
    once = estimate_training(LLAMA_8B, recipe, rows, CARD)
    again = estimate_training(LLAMA_8B, recipe.model_copy(update={"gradient_checkpointing": True}), rows, CARD)
    assert (once.tokens, once.steps) == (1_600_000, 250)
    assert 1.3 < again.seconds / once.seconds < 1.5


def test_cards_are_found_as_people_write_them() -> None:
    assert find_gpu("NVIDIA GeForce RTX 3090").name == "RTX 3090"
    assert find_gpu("h100").memory_gib == 80
    assert {gpu.name for gpu in GPUS} >= {"RTX 3060 12GB", "RTX 4090", "A100 80GB", "H200"}
    with pytest.raises(ConfigError, match="could be several; name one of: A100 40GB, A100 80GB"):
        find_gpu("A100")
    with pytest.raises(ConfigError, match="not in the table"):
        find_gpu("Voodoo 2")
