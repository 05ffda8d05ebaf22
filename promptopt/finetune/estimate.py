"""How much memory and time a training takes, by arithmetic alone: nothing is loaded, nothing is measured here.

Memory of QLoRA (Dettmers et al. 2023, arXiv 2305.14314): 4 bits per weight of a linear layer and 0.127 for its doubly
quantized scales, 16 bytes per LoRA weight (value, gradient and two moments of AdamW, float32), and what the forward
pass keeps for the backward one, counted tensor by tensor for a Llama block with LoRA layers (as in Korthikanti et al.
2022, arXiv 2205.05198, for full training). A frozen layer keeps no input of its own: it has no weight gradient.

Time: 4 operations per weight and token (forward, and the gradient by the input; a frozen weight has no gradient of its
own), 6 with gradient checkpointing, and attention. What was measured against this stands in docs/weights.md: on CPUs;
figures for graphics cards are arithmetic.
"""

from dataclasses import dataclass, replace
from typing import Literal

from promptopt.config.recipe import TrainingRecipe
from promptopt.finetune.model_shape import ModelShape

Device = Literal["cpu", "cuda"]

MAX_LOGITS = 2**25
"""Largest number of float32 logits the trainer holds at once on a CPU; longer batches are computed in tiles."""

_BITS_4 = 0.5 + 0.127 / 8
_PROCESS_BYTES = {"cpu": 620e6, "cuda": 800e6}
"""Python with torch, transformers and TRL (resident memory, measured); the context of CUDA and cuBLAS' workspaces
(NVIDIA says 0.3 to 0.6 GB by card, and torch's workspaces come on top)."""
HEAP_HOLES = 0.40
"""Share of the short-lived tensors of a forward pass that the heap of glibc before 2.38 does not use again: it cannot
put an aligned block into the hole that one of the same size left. Measured: 0.35 (large batches) to 0.8 (tiny ones)."""
_UTILISATION = {"nf4": 0.30, "fp4": 0.30, "none": 0.40}
"""Share of a card's peak that a training reaches. Assumed, from published runs of TRL; 4-bit weights are unpacked."""
_CPU_UTILISATION = 0.6
_TRAFFIC = 4
"""Times that an activation is written or read in forward and backward pass, on a CPU."""


@dataclass(frozen=True)
class RowLengths:
    """The rows of a training.

    Attributes:
        longest, mean: tokens of a row; longest_answer, mean_answer: those of them that carry loss.
        shared: tokens that all prompts begin with.
    """

    rows: int
    longest: int
    mean: float
    longest_answer: int
    mean_answer: float
    shared: int = 0

    def up_to(self, limit: int) -> "RowLengths":
        """Return these with rows of at most `limit` tokens."""
        return replace(self, longest=min(self.longest, limit), mean=min(self.mean, limit))


@dataclass(frozen=True)
class Machine:
    """What a training would run on.

    Attributes:
        flops: multiplications and additions per second that large matrix products reach.
        bandwidth: bytes of memory per second.
        holes: see `HEAP_HOLES`; 0 on a graphics card, whose memory torch manages.
    """

    name: str
    device: Device
    memory_bytes: float
    flops: float
    bandwidth: float
    holes: float = 0.0


@dataclass(frozen=True)
class TrainingEstimate:
    """What one training takes.

    Attributes:
        memory: part -> bytes at the peak.
        tokens: tokens of all epochs; steps: of the optimizer.
        seconds: of training, evaluations and loading left out.
    """

    memory: dict[str, float]
    tokens: float
    steps: int
    seconds: float

    @property
    def bytes(self) -> float:
        """Bytes at the peak."""
        return sum(self.memory.values())

    @property
    def tokens_per_s(self) -> float:
        """Tokens trained on per second, prompts included."""
        return self.tokens / self.seconds if self.seconds else 0.0


def estimate_training(
    shape: ModelShape, recipe: TrainingRecipe, rows: RowLengths, machine: Machine, *, unpacked: bool = False
) -> TrainingEstimate:
    """Return what training `recipe` on `rows` takes on `machine`.

    Args:
        unpacked: whether the CPU holds the values of 4-bit weights (see `base_model.resolve_residency`).
    """
    rows = rows.up_to(recipe.max_length)
    batches = -(-rows.rows // recipe.batch_size)
    steps = max(1, round(-(-batches // recipe.gradient_accumulation) * recipe.epochs))
    if recipe.packing:
        full = max(1.0, rows.rows * rows.mean / recipe.max_length)
        steps = max(1, round(full / (recipe.batch_size * recipe.gradient_accumulation) * recipe.epochs))
    tokens = rows.rows * rows.mean * recipe.epochs
    answers = rows.rows * rows.mean_answer * recipe.epochs
    return TrainingEstimate(
        memory=training_memory(shape, recipe, rows, machine, unpacked=unpacked),
        tokens=tokens,
        steps=steps,
        seconds=_seconds(shape, recipe, rows, machine, tokens, answers),
    )


def training_memory(
    shape: ModelShape, recipe: TrainingRecipe, rows: RowLengths, machine: Machine, *, unpacked: bool = False
) -> dict[str, float]:
    """Return part -> bytes at the peak of a training, which is when the longest batch turns back."""
    wide = 4 if machine.device == "cpu" else 2
    weights = weight_bytes(shape, recipe, machine.device, unpacked=unpacked)
    lora = shape.lora_parameters(recipe.rank, recipe.target_modules)
    longest = recipe.max_length if recipe.packing else rows.longest
    at_once = recipe.batch_size if recipe.packing else min(recipe.batch_size, rows.rows)
    tokens = at_once * longest
    kept, passing = _block_bytes(shape, recipe, longest, machine.device)
    blocks = 1 if recipe.gradient_checkpointing else shape.layers
    inputs = shape.layers * shape.hidden * wide if recipe.gradient_checkpointing else 0
    # The gradients on their way back are of one block; a 4-bit layer is unpacked while it is used.
    turning = tokens * passing / 2 + (0 if unpacked or recipe.base_quantization == "none" else _largest(shape) * wide)
    return {
        "weights": weights,
        "LoRA weights": 4.0 * lora,
        "gradients": 4.0 * lora,
        "optimizer": 8.0 * lora,
        "activations": tokens * (blocks * kept + inputs) + turning,
        "logits": _logit_bytes(shape, recipe, rows, machine.device),
        "heap": tokens * shape.layers * passing * machine.holes,
        "process": _PROCESS_BYTES[machine.device],
    }


def weight_bytes(shape: ModelShape, recipe: TrainingRecipe, device: Device, *, unpacked: bool = False) -> float:
    """Return the bytes of the frozen base as it is held: 4-bit, or 16 bits on a card, or 32 on a CPU."""
    wide = 4 if device == "cpu" else 2
    packed = recipe.base_quantization != "none" and not unpacked
    return shape.linear_parameters * (_BITS_4 if packed else wide) + shape.other_parameters * wide


def _block_bytes(shape: ModelShape, recipe: TrainingRecipe, length: int, device: Device) -> tuple[float, float]:
    """Return, per token, the bytes that one block keeps for the backward pass, and those of its short-lived tensors."""
    hidden, inner = shape.hidden, shape.feed_forward
    queries, keys = shape.heads * shape.head, shape.kv_heads * shape.head
    ranks = sum(recipe.rank for _ in shape.trained(recipe.target_modules)) / max(1, shape.layers)
    # Attention keeps query, key, value and result, keys and values repeated to all heads; the MLP keeps what goes into
    # and comes out of its product; a LoRA layer keeps its input.
    attention, mlp = 4 * queries, 4 * inner
    if device == "cpu":
        kept = 4.0 * (2 * hidden + 2 * hidden + attention + mlp + ranks + length)  # the mask of the batch is kept, too
    else:
        copies = (3 * hidden + queries if recipe.target_modules != "mlp" else 0) + (
            2 * hidden + inner if recipe.target_modules != "attention" else 0
        )
        kept = 4.0 * 2 * hidden + 2.0 * (copies + attention + mlp - inner + ranks)
    passing = 12 * hidden + 7.5 * queries + 10.5 * keys + 6 * inner
    return kept, passing * (4 if device == "cpu" else 2)


def _logit_bytes(shape: ModelShape, recipe: TrainingRecipe, rows: RowLengths, device: Device) -> float:
    # Measured without gradients over a whole batch: logits, their float32 copy, their log-probabilities.
    logits = min(recipe.batch_size, rows.rows) * (rows.longest_answer + 1) * shape.vocabulary
    if device == "cuda":
        return logits * (2 + 4 + 4)
    return max(3 * 4 * min(logits, MAX_LOGITS), 2 * 4 * logits)


def _largest(shape: ModelShape) -> int:
    return max((linear.parameters for linear in shape.linears), default=0)


def _seconds(
    shape: ModelShape, recipe: TrainingRecipe, rows: RowLengths, machine: Machine, tokens: float, answers: float
) -> float:
    passes = 6 if recipe.gradient_checkpointing else 4
    lora = shape.lora_parameters(recipe.rank, recipe.target_modules)
    attention = 3 * passes * shape.layers * shape.heads * shape.head * rows.mean
    work = tokens * (passes * shape.linear_parameters + 6 * lora + attention) + answers * 4 * shape.output_parameters
    if machine.device == "cuda":
        return work / (machine.flops * _UTILISATION[recipe.base_quantization])
    kept, passing = _block_bytes(shape, recipe, round(rows.mean), machine.device)
    traffic = tokens * shape.layers * (kept + passing) * _TRAFFIC * passes / 4
    return work / (machine.flops * _CPU_UTILISATION) + traffic / machine.bandwidth
