"""4-bit layers: the guard holds, and the self-test sees what happens without it."""

from pathlib import Path
from typing import Any

import pytest

from promptopt.errors import TrainingError
from promptopt.finetune.base_model import load_base, quiet_libraries
from promptopt.finetune.linear4bit import check_guarded, guard_linear4bit
from promptopt.finetune.selftest import run_selftest


@pytest.mark.parametrize("quantization", ["nf4", "fp4"])
def test_the_gradient_through_guarded_layers_is_right(quantization: str) -> None:
    result = run_selftest("cpu", quantization)
    assert result.ok, result.detail
    assert result.seconds < 10


def test_the_self_test_leaves_the_random_state_alone() -> None:
    import torch

    before = torch.get_rng_state()
    run_selftest("cpu")
    assert torch.equal(before, torch.get_rng_state())


def test_the_self_test_sees_the_bug_where_the_cpu_has_it() -> None:
    from bitsandbytes.functional import has_avx512bf16

    if not has_avx512bf16():
        pytest.skip("this CPU has no AVX512-BF16, so bitsandbytes never repacks")
    result = run_selftest("cpu", guarded=False)
    assert not result.ok, result.detail


@pytest.mark.parametrize("damage", ["detached", "half"])
def test_the_self_test_sees_a_wrong_gradient(monkeypatch: pytest.MonkeyPatch, damage: str) -> None:
    # What the bug does, on any CPU: right values, and a gradient that is cut off or wrong after an evaluation.
    import bitsandbytes as bnb

    forward = bnb.nn.Linear4bit.forward

    def damaged(layer: Any, x: Any) -> Any:
        y = forward(layer, x)
        return y.detach() if damage == "detached" else y / 2 + (y / 2).detach()

    monkeypatch.setattr(bnb.nn.Linear4bit, "forward", damaged)
    result = run_selftest("cpu")
    assert not result.ok
    assert "above" in result.detail


def test_the_guard_survives_preparing_and_wrapping(base_dir: Path) -> None:
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training

    with quiet_libraries():
        base = load_base(base_dir, "nf4", "packed", device="cpu")
        prepared = prepare_model_for_kbit_training(base.model)
        wrapped = get_peft_model(prepared, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    assert base.held == "nf4"
    assert check_guarded(wrapped) == 14


def test_an_unguarded_or_repacked_layer_is_refused(base_dir: Path) -> None:
    import bitsandbytes as bnb

    with quiet_libraries():
        model = load_base(base_dir, "nf4", "packed", device="cpu").model
    layer = next(module for module in model.modules() if isinstance(module, bnb.nn.Linear4bit))
    layer.support_avx512bf16_for_cpu = True
    with pytest.raises(TrainingError, match="lost its guard"):
        check_guarded(model)
    layer.weight.quant_state.packing_format_for_cpu = True
    with pytest.raises(TrainingError, match="repacked"):
        guard_linear4bit(model)


def test_dequantised_weights_are_the_function_of_the_packed_ones(base_dir: Path) -> None:
    import torch

    ids = torch.arange(20).unsqueeze(0)
    with quiet_libraries(), torch.no_grad():
        packed = load_base(base_dir, "nf4", "packed", device="cpu")
        resident = load_base(base_dir, "nf4", "dequantised", device="cpu")
        plain = load_base(base_dir, "none", device="cpu")
        logits = [base.model(ids).logits for base in (packed, resident, plain)]
    assert resident.held == "nf4, dequantised in memory"
    assert torch.allclose(logits[0], logits[1], atol=1e-4)
    assert not torch.allclose(logits[0], logits[2], atol=1e-2)
