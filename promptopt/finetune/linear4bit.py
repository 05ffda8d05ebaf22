"""bitsandbytes' 4-bit layers: find them, and guard them against the CPU path that corrupts gradients.

bitsandbytes 0.50 repacks the weights of a `Linear4bit` the first time it runs without gradients on a CPU with
AVX512-BF16. From then on the layer uses a kernel without autograd, also while training: the loss looks normal and the
gradient at the first layer is 63-69 % wrong. With `support_avx512bf16_for_cpu = False` the layer never repacks.
"""

from typing import TYPE_CHECKING, Any

from promptopt.errors import TrainingError
from promptopt.extras import require

if TYPE_CHECKING:
    from torch import nn


def guard_linear4bit(model: "nn.Module") -> int:
    """Switch the repacking off in every 4-bit layer of `model`; return how many there are. Call it before any forward.

    Raises:
        TrainingError: a layer is repacked already.
    """
    layers = _layers(model)
    for name, layer in layers:
        _require_unpacked(name, layer)
        layer.support_avx512bf16_for_cpu = False
    return len(layers)


def check_guarded(model: "nn.Module") -> int:
    """Prove that every 4-bit layer of `model` is guarded and not repacked; return how many there are.

    Raises:
        TrainingError: a layer is not; wrapping the model has replaced it, or bitsandbytes has renamed its switch.
    """
    layers = _layers(model)
    for name, layer in layers:
        _require_unpacked(name, layer)
        if getattr(layer, "support_avx512bf16_for_cpu", True):
            raise TrainingError(
                f"The 4-bit layer {name!r} lost its guard against bitsandbytes' AVX512-BF16 repacking, which corrupts "
                "gradients. This bitsandbytes is not supported; install the version in constraints.txt, or train with "
                "finetune.base_quantization: none."
            )
    return len(layers)


def _layers(model: "nn.Module") -> list[tuple[str, Any]]:
    linear4bit = require("bitsandbytes").nn.Linear4bit
    return [(name, layer) for name, layer in model.named_modules() if isinstance(layer, linear4bit)]


def _require_unpacked(name: str, layer: Any) -> None:
    if getattr(getattr(layer.weight, "quant_state", None), "packing_format_for_cpu", False):
        raise TrainingError(
            f"The 4-bit layer {name!r} has been repacked for inference; gradients through it are wrong. Load the model "
            "again and train before anything is generated with it."
        )
