"""Sets of LoRA weights in one forward get the gradients of separate training, whatever stands beside them."""

from pathlib import Path
from typing import Any

import pytest

from promptopt.config.recipe import TrainingRecipe
from promptopt.finetune.base_model import load_base, quiet_libraries
from promptopt.finetune.batches import padded
from promptopt.finetune.lora import add_lora, load_weights, save_weights
from promptopt.finetune.rows import TokenRow, tokenize_rows
from promptopt.finetune.trainer import completion_log_probs
from tests.finetune.tiny_models import make_rows

TOLERANCE = 1e-5
"""Of float32 gradients, relative to the largest of a weight: rows stand in other matrix products, so sums round
differently."""

RECIPES = (
    TrainingRecipe(rank=4, alpha=8),
    TrainingRecipe(rank=16, alpha=16, rslora=True, target_modules="attention"),
    TrainingRecipe(rank=8, alpha=32, target_modules="mlp"),
)


@pytest.fixture(scope="module")
def rows(base_dir: Path) -> list[tuple[TokenRow, ...]]:
    """A batch for each recipe, of 3, 1 and 2 rows of unequal length."""
    with quiet_libraries():
        tokenizer = load_base(base_dir, "none", device="cpu").tokenizer
    all_rows = tokenize_rows(make_rows(6, 0, words=12), tokenizer, 256, 0).rows
    return [all_rows[:3], all_rows[3:4], all_rows[4:]]


def _trained_a_little(model: Any, seed: int) -> None:
    """Move B away from zero, or A would get no gradient."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    for name, value in model.named_parameters():
        if "lora_B" in name and value.requires_grad:
            torch.nn.init.normal_(value, std=0.1, generator=generator)


def _separate(
    base_dir: Path, folder: Path, number: int, recipe: TrainingRecipe, batch: tuple[TokenRow, ...]
) -> "list[Any]":
    with quiet_libraries():
        base = load_base(base_dir, "none", device="cpu")
        model = add_lora(base.model, recipe, seed=number)
    _trained_a_little(model, number)
    save_weights(model, folder / str(number))
    log_probs, _ = completion_log_probs(model, padded(batch, 0))
    (-log_probs.sum()).backward()
    return [value.grad for value in model.parameters() if value.requires_grad]


def _shared(base_dir: Path, recipes: "tuple[TrainingRecipe, ...]" = RECIPES) -> Any:
    from promptopt.finetune.together.forward import LoraSet, SharedForward

    with quiet_libraries():
        base = load_base(base_dir, "none", device="cpu")
        sets = [LoraSet(f"set{number}", recipe, number) for number, recipe in enumerate(recipes)]
        return SharedForward(base.model, sets), sets


@pytest.mark.parametrize(("checkpointing", "equal_rows"), [(False, False), (True, True), (False, True)])
def test_gradients_are_those_of_separate_training(
    base_dir: Path, rows: list[tuple[TokenRow, ...]], tmp_path: Path, checkpointing: bool, equal_rows: bool
) -> None:
    """Sets with equal numbers of rows and the same layers go through grouped products, others do not."""
    import torch

    from promptopt.finetune.together.forward import Slice

    if equal_rows:
        everything = [row for batch in rows for row in batch]
        rows = [(everything[number], everything[number + 3]) for number in range(3)]
    changed = {"gradient_checkpointing": checkpointing, **({"target_modules": "all-linear"} if equal_rows else {})}
    recipes = tuple(recipe.model_copy(update=changed) for recipe in RECIPES)
    expected = [
        _separate(base_dir, tmp_path, number, recipe, batch)
        for number, (recipe, batch) in enumerate(zip(recipes, rows, strict=True))
    ]
    shared, sets = _shared(base_dir, recipes)
    for number, lora_set in enumerate(sets):
        load_weights(shared.model, tmp_path / str(number), lora_set.name)
    slices = [Slice(lora_set, len(batch)) for lora_set, batch in zip(sets, rows, strict=True)]
    with shared.using(*slices) as model:
        log_probs, _ = completion_log_probs(model, padded([row for batch in rows for row in batch], 0))
        (-log_probs.sum()).backward()
    for lora_set, gradients in zip(sets, expected, strict=True):
        got = [parameter.grad for parameter in shared.parameters(lora_set)]
        assert len(got) == len(gradients) > 0
        for one, other in zip(got, gradients, strict=True):
            assert one.shape == other.shape and float(other.abs().max()) > 0
            assert float((one - other).abs().max()) <= TOLERANCE * float(other.abs().max())
    frozen = [value for name, value in shared.model.named_parameters() if "lora_" not in name]
    assert frozen and all(value.grad is None for value in frozen)
    assert torch.is_grad_enabled()


def test_every_set_starts_as_it_would_alone(base_dir: Path) -> None:
    import torch

    shared, sets = _shared(base_dir)
    for lora_set in sets:
        with quiet_libraries():
            model = add_lora(load_base(base_dir, "none", device="cpu").model, lora_set.recipe, lora_set.seed)
        alone = [value for value in model.parameters() if value.requires_grad]
        together = shared.parameters(lora_set)
        assert all(torch.equal(one, other) for one, other in zip(alone, together, strict=True))


def test_without_a_set_the_model_is_the_bare_base(base_dir: Path, rows: list[tuple[TokenRow, ...]]) -> None:
    import torch

    from promptopt.finetune.together.forward import Slice

    with quiet_libraries():
        bare = load_base(base_dir, "none", device="cpu").model
    shared, sets = _shared(base_dir)
    batch = padded(rows[0], 0)
    for lora_set in sets:
        for value in shared.parameters(lora_set):
            torch.nn.init.normal_(value, std=0.1)
    with torch.no_grad():
        expected = bare(**batch).logits
        assert torch.equal(shared.model(**batch).logits, expected)
        with shared.using(Slice(sets[0])):
            assert not torch.allclose(shared.model(**batch).logits, expected)
        assert torch.equal(shared.model(**batch).logits, expected)


def test_noise_depends_on_seed_batch_and_layer_alone() -> None:
    import torch

    from promptopt.finetune.together.noise import NoiseSource, drop_out, neftune

    x = torch.ones(2, 5, 64)
    source = NoiseSource(seed=3, batch=7)
    dropped = drop_out(x, 0.25, 5, source, layer=1)
    kept = dropped != 0
    assert 0.6 < float(kept.float().mean()) < 0.9
    assert torch.allclose(dropped[kept], torch.tensor(1 / 0.75))
    longer = drop_out(torch.ones(2, 9, 64), 0.25, 5, source, layer=1)
    assert torch.equal(longer[:, :5], dropped) and not longer[:, 5:].any()
    for other in (
        drop_out(x, 0.25, 5, source, layer=2),
        drop_out(x, 0.25, 5, NoiseSource(3, 8), layer=1),
        drop_out(x, 0.25, 5, NoiseSource(4, 7), layer=1),
    ):
        assert not torch.equal(other, dropped)
    noise = neftune(x, 5.0, 5, source) - x
    largest = 5.0 / (5 * 64) ** 0.5
    assert 0.9 * largest < float(noise.abs().max()) <= largest * 1.0001
