"""A resident base: every training gets it as it was loaded, gives it back so, and ends as on a base of its own."""

import gc
from pathlib import Path
from typing import Any

import pytest

from promptopt.config.recipe import TrainingRecipe
from promptopt.errors import TrainingError
from promptopt.finetune import resident as resident_module
from promptopt.finetune import row_cache, selftest
from promptopt.finetune.resident import ResidentBase
from promptopt.finetune.row_cache import RowCache
from promptopt.finetune.rows import TokenizedRows, read_rows
from promptopt.finetune.train import finetune
from promptopt.records import LossPoint
from tests.finetune.bits import lora_bytes, structure, tensor_hashes
from tests.finetune.tiny_models import make_base, make_rows, make_tokenizer, write_rows

PLAIN = TrainingRecipe(rank=4, alpha=8, learning_rate=1e-2, epochs=0.5, batch_size=8, patience=None)
RECIPES = {
    "dropout": PLAIN.model_copy(update={"dropout": 0.1, "weight_decay": 0.1}),
    "neftune": PLAIN.model_copy(update={"neftune_noise": 5.0, "rslora": True, "rank": 8}),
    "checkpointing": PLAIN.model_copy(update={"gradient_checkpointing": True, "gradient_accumulation": 2}),
    "attention": PLAIN.model_copy(update={"target_modules": "attention", "loss": "dft"}),
}
PACKING = PLAIN.model_copy(update={"packing": True, "max_length": 128, "batch_size": 2})
GROWTH_BYTES = 6 * 2**20
"""Memory that six trainings may add: less than 1 MiB each. Pages of the allocator come and go by some hundred KiB."""


class Failure(Exception):
    pass


def _seen(base: ResidentBase) -> tuple[dict[str, str], dict[str, Any]]:
    with base.lend() as loaded:
        return tensor_hashes(loaded.model), structure(loaded.model)


def _fail(point: LossPoint, total: int) -> None:
    if point.step == 2:
        raise Failure


@pytest.mark.parametrize(("quantization", "residency"), [("nf4", "packed"), ("nf4", "dequantised"), ("none", "auto")])
def test_the_base_comes_back_to_the_last_bit_and_attribute(
    quantization: Any, residency: Any, base_dir: Path, train_file: Path, val_file: Path, tmp_path: Path
) -> None:
    with ResidentBase(base_dir, quantization, residency) as base:
        before = _seen(base)
        assert not any("lora" in name for name in before[0])
        for name, recipe in RECIPES.items():
            recipe = recipe.model_copy(update={"base_quantization": quantization})
            finetune(train_file, val_file, base_dir, recipe, tmp_path / name, 1, resident=base)
            assert _seen(base) == before, name
            with pytest.raises(Failure):
                finetune(train_file, val_file, base_dir, recipe, tmp_path / f"{name}-broken", 1, _fail, resident=base)
            assert _seen(base) == before, name
        diverging = PLAIN.model_copy(update={"base_quantization": quantization, "alpha": 1e40})
        with pytest.raises(TrainingError, match="diverged"):
            finetune(train_file, val_file, base_dir, diverging, tmp_path / "diverged", 1, resident=base)
        assert _seen(base) == before


@pytest.mark.parametrize("residency", ["packed", "dequantised"])
def test_a_training_does_not_depend_on_what_was_trained_before(
    residency: Any, base_dir: Path, train_file: Path, val_file: Path, tmp_path: Path
) -> None:
    recipes = {"packing": PACKING, **RECIPES}
    fresh = {
        name: finetune(train_file, val_file, base_dir, recipe, tmp_path / name, 5, residency=residency)
        for name, recipe in recipes.items()
    }
    order = ("dropout", "neftune", "checkpointing", "broken", "dropout", "packing", "attention", "neftune", "dropout")
    with ResidentBase(base_dir, "nf4", residency) as base:
        for number, name in enumerate(order):
            out = tmp_path / f"{number}-{name}"
            if name == "broken":  # in the middle of an epoch
                with pytest.raises(Failure):
                    finetune(train_file, val_file, base_dir, recipes["neftune"], out, 5, _fail, resident=base)
                continue
            result = finetune(train_file, val_file, base_dir, recipes[name], out, 5, resident=base)
            assert result.model_copy(update={"wall_s": fresh[name].wall_s}) == fresh[name]
            assert lora_bytes(out) == lora_bytes(tmp_path / name)


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * 4096


def _tensors_in_memory() -> int:
    import torch

    gc.collect()
    return sum(issubclass(type(item), torch.Tensor) for item in gc.get_objects())


def test_memory_does_not_grow_from_training_to_training(
    base_dir: Path, train_file: Path, val_file: Path, tmp_path: Path
) -> None:
    tensors, memory = [], []
    with ResidentBase(base_dir) as base:
        for number in range(8):
            recipe = RECIPES["dropout" if number % 2 else "neftune"]
            if number == 4:
                with pytest.raises(Failure):
                    finetune(train_file, val_file, base_dir, recipe, tmp_path / "broken", 1, _fail, resident=base)
            finetune(train_file, val_file, base_dir, recipe, tmp_path / str(number), number, resident=base)
            tensors.append(_tensors_in_memory())
            memory.append(_resident_bytes())
    assert tensors[1:] == [tensors[1]] * 7
    assert memory[-1] - memory[1] < GROWTH_BYTES, memory


def test_another_base_than_the_recipe_needs_is_refused(
    base_dir: Path, train_file: Path, val_file: Path, tmp_path: Path
) -> None:
    with ResidentBase(base_dir, "nf4", "packed") as base:
        for changes, where, complaint in (
            ({"base_quantization": "fp4"}, base_dir, "base_quantization fp4, but the resident base has .* nf4"),
            ({}, make_base(tmp_path / "other"), "base_dir"),
        ):
            with pytest.raises(TrainingError, match=complaint):
                recipe = PLAIN.model_copy(update=changes)
                finetune(train_file, val_file, where, recipe, tmp_path, 1, residency="packed", resident=base)
        with pytest.raises(TrainingError, match="residency dequantised"):
            finetune(train_file, val_file, base_dir, PLAIN, tmp_path, 1, residency="dequantised", resident=base)
        with base.lend(), pytest.raises(TrainingError, match="in use"), base.lend():
            pass
    base.close()
    with pytest.raises(TrainingError, match="closed"), base.lend():
        pass


def _change(base: ResidentBase) -> None:
    assert base._loaded is not None
    next(iter(base._loaded.model.parameters())).data.view(-1)[5] += 1e-3


def test_a_changed_base_is_seen_and_loaded_again(
    base_dir: Path, train_file: Path, val_file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "out"
    with ResidentBase(base_dir) as base:
        base.check()
        before = _seen(base)[0]
        base.check()
        with pytest.raises(TrainingError, match="changed in memory"):
            finetune(train_file, val_file, base_dir, PLAIN, out, 1, lambda point, total: _change(base), resident=base)
        assert sorted(path.name for path in out.iterdir()) == ["finetune_key.json"]
        assert _seen(base)[0] == before

        def change_and_fail(point: LossPoint, total: int) -> None:
            _change(base)
            raise Failure

        with pytest.raises(Failure):
            finetune(train_file, val_file, base_dir, PLAIN, out, 1, change_and_fail, resident=base)
        assert "loaded again" in caplog.text
        assert _seen(base)[0] == before


def test_no_change_of_a_tensor_escapes_the_checksum() -> None:
    import torch

    from promptopt.finetune.pristine import tensor_checksum

    generator = torch.Generator().manual_seed(0)
    for dtype in (torch.float32, torch.bfloat16, torch.uint8):
        layer = torch.nn.Module()
        layer.register_buffer("x", torch.randint(0, 99, (150, 331), generator=generator).to(dtype))
        layer.register_buffer("odd", torch.arange(9).to(dtype)[3:])
        before = tensor_checksum(layer)
        assert tensor_checksum(layer) == before
        for name, place in (("x", 0), ("x", 24_000), ("x", -1), ("odd", 2)):
            values = layer.get_buffer(name).view(-1)
            kept = values[place].clone()
            values[place] += 1
            assert tensor_checksum(layer) != before
            values[place] = kept
        assert tensor_checksum(layer) == before


def test_rows_are_tokenised_and_the_self_test_run_once(
    base_dir: Path, train_file: Path, val_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    tokenize, test, load = row_cache.tokenize_rows, selftest.run_selftest, resident_module.load_base

    def note(name: str, function: Any) -> Any:
        def noted(*arguments: Any, **named: Any) -> Any:
            calls.append(name)
            return function(*arguments, **named)

        return noted

    monkeypatch.setattr(row_cache, "tokenize_rows", note("tokenize", tokenize))
    monkeypatch.setattr(selftest, "run_selftest", note("selftest", test))
    monkeypatch.setattr(resident_module, "load_base", note("load", load))
    selftest.require_selftest.cache_clear()
    with ResidentBase(base_dir) as base:
        for number, recipe in enumerate((RECIPES["dropout"], RECIPES["neftune"])):
            finetune(train_file, val_file, base_dir, recipe, tmp_path / str(number), 1, resident=base)
        assert sorted(calls) == ["load", "selftest", "tokenize", "tokenize"]
        longer = RECIPES["dropout"].model_copy(update={"max_length": 200})
        finetune(train_file, val_file, base_dir, longer, tmp_path / "2", 1, resident=base)
    assert sorted(calls) == ["load", "selftest", *["tokenize"] * 4]


def test_a_finished_training_is_returned_without_loading_the_base(
    base_dir: Path, train_file: Path, val_file: Path, tmp_path: Path
) -> None:
    result = finetune(train_file, val_file, base_dir, PLAIN, tmp_path, 1)
    with ResidentBase(base_dir) as base:
        assert finetune(train_file, val_file, base_dir, PLAIN, tmp_path, 1, resident=base) == result
        assert base._loaded is None


def test_the_row_cache_goes_by_content_and_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = make_tokenizer()
    cache = RowCache(tokenizer, frozenset({tokenizer.eos_token_id}), size=2)
    paths = [write_rows(tmp_path / f"{seed}.jsonl", make_rows(3, seed)) for seed in range(3)]

    def get(path: Path) -> TokenizedRows:
        return cache.tokenized(path, read_rows(path), 256, 0)

    first = get(paths[0])
    assert get(paths[1]) != first
    assert get(paths[0]) is first
    assert get(write_rows(tmp_path / "copy.jsonl", make_rows(3, 0))) is first
    get(paths[2])
    assert get(paths[0]) is first  # used after the second one, which went
    assert get(write_rows(paths[0], make_rows(4, 0))) != first
