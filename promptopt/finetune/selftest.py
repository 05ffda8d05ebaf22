"""A self-test of 4-bit training on this machine: is the gradient through the 4-bit layers right?

Run before the first 4-bit training of a process and by `promptopt doctor`, because the known bug (see `linear4bit`)
leaves the loss looking normal.
"""

import functools
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from promptopt.errors import TrainingError
from promptopt.extras import require
from promptopt.finetune.linear4bit import guard_linear4bit

if TYPE_CHECKING:
    import torch

TOLERANCE = {"cpu": 1e-4, "cuda": 2e-2}
"""Largest relative gradient error. CPU computes in float32 (measured 1e-7 to 1e-6); CUDA kernels may use TF32 or
bfloat16 inside. The known bug is at 0.6."""

logger = logging.getLogger(__name__)

_WIDTH = 128
_LAYERS = 3


@dataclass(frozen=True)
class SelfTestResult:
    """Outcome of the 4-bit self-test; `detail` is one line for a person, `seconds` excludes imports."""

    ok: bool
    detail: str
    seconds: float


def run_selftest(device: str | None = None, quantization: str = "nf4", *, guarded: bool = True) -> SelfTestResult:
    """Compare the gradient through random 4-bit layers with that through their dequantised weights.

    Between the two stands an evaluation without gradients, the moment at which unguarded layers repack themselves.

    Args:
        device: "cpu" or "cuda"; None = CUDA where there is one.
        quantization: "nf4" or "fp4".
        guarded: False shows what happens without the guard; for tests and for reports to bitsandbytes.

    Raises:
        MissingExtraError: torch or bitsandbytes is not installed.
    """
    torch = require("torch")
    require("bitsandbytes")
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    started = time.perf_counter()
    try:
        error = _gradient_error(device, quantization, guarded)
    except (RuntimeError, ValueError, NotImplementedError) as failure:
        return SelfTestResult(False, f"4-bit layers do not train on {device}: {failure}", time.perf_counter() - started)
    ok = error <= TOLERANCE[device]
    detail = (
        f"{quantization} on {device}: relative gradient error {error:.1e}, {'at most' if ok else 'above'} "
        f"{TOLERANCE[device]:.0e}"
    )
    return SelfTestResult(ok, detail, time.perf_counter() - started)


@functools.cache
def require_selftest(device: str, quantization: str) -> None:
    """Run the self-test; one that passed is not run again in this process: neither CPU nor library change meanwhile.

    Raises:
        TrainingError: 4-bit training is wrong on this machine.
    """
    outcome = run_selftest(device, quantization)
    logger.info("4-bit self-test: %s (%.2f s)", outcome.detail, outcome.seconds)
    if not outcome.ok:
        raise TrainingError(
            f"The 4-bit self-test failed: {outcome.detail}. Training on would give wrong weights. Install the versions "
            "in constraints.txt, or set finetune.base_quantization: none."
        )


def _gradient_error(device: str, quantization: str, guarded: bool) -> float:
    import torch

    # The self-test must not move the random state of the training that follows.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = _linear4bit_stack(quantization, device)
        references = _dequantised(layers)
        x = torch.randn(8, _WIDTH).to(device)
    if guarded:
        guard_linear4bit(layers)
    layers.eval()
    with torch.no_grad():
        layers(x)
    layers.train()
    got = _input_gradient(layers, x)
    expected = _input_gradient(references, x)
    return float((got - expected).norm() / expected.norm())


def _linear4bit_stack(quantization: str, device: str) -> "torch.nn.Sequential":
    import torch

    bnb = require("bitsandbytes")
    layers: list[torch.nn.Module] = []
    for _ in range(_LAYERS):
        layer = bnb.nn.Linear4bit(
            _WIDTH, _WIDTH, bias=False, compute_dtype=torch.float32, quant_type=quantization, compress_statistics=True
        )
        weight = torch.randn(_WIDTH, _WIDTH) / _WIDTH**0.5
        layer.weight = bnb.nn.Params4bit(
            weight, requires_grad=False, quant_type=quantization, compress_statistics=True, module=layer
        )
        layers += [layer.to(device), torch.nn.Tanh()]
    return torch.nn.Sequential(*layers)


def _dequantised(layers: "torch.nn.Sequential") -> "torch.nn.Sequential":
    import torch

    bnb = require("bitsandbytes")
    plain: list[torch.nn.Module] = []
    for layer in layers:
        if not isinstance(layer, bnb.nn.Linear4bit):
            plain.append(torch.nn.Tanh())
            continue
        linear = torch.nn.Linear(_WIDTH, _WIDTH, bias=False)
        weight = bnb.functional.dequantize_4bit(layer.weight.data, cast(Any, layer.weight).quant_state).float()
        linear.weight = torch.nn.Parameter(weight, requires_grad=False)
        plain.append(linear)
    return torch.nn.Sequential(*plain)


def _input_gradient(layers: "torch.nn.Sequential", x: "torch.Tensor") -> "torch.Tensor":
    """Return the gradient that would reach the LoRA weights below; zeros where it is cut off."""
    import torch

    x = x.clone().requires_grad_(True)
    loss = layers(x).square().sum()
    if not loss.requires_grad:  # the inference kernel has no autograd at all when nothing else needs gradients
        return torch.zeros_like(x)
    (gradient,) = torch.autograd.grad(loss, x, allow_unused=True)
    return torch.zeros_like(x) if gradient is None else gradient
