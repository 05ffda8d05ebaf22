"""How large a model is, read from its config.json and the headers of its safetensors: no weight is loaded."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any, Literal

from promptopt.errors import ModelError
from promptopt.finetune.base_folder import weight_files

Targets = Literal["all-linear", "attention", "mlp"]

_IN_BLOCK = re.compile(r"\.(self_attn|mlp)\..*weight$")


@dataclass(frozen=True)
class Linear:
    """One linear layer inside a block; `inputs` and `outputs` are widths."""

    part: Literal["attention", "mlp"]
    inputs: int
    outputs: int

    @property
    def parameters(self) -> int:
        """Weights of the layer."""
        return self.inputs * self.outputs


@dataclass(frozen=True)
class ModelShape:
    """What decides how much memory and time a model takes.

    Attributes:
        hidden, feed_forward: widths of the residual stream and of the inner layer of the MLP.
        heads, kv_heads, head: query heads, key-value heads, width of one head.
        context: tokens the model was trained for; None where the config does not say.
        tied: whether the output layer is the embedding table.
        linears: every linear layer of every block: what is held in 4 bits, and what LoRA weights are put on.
        other_parameters: embeddings, output layer, norms, biases: never quantized.
    """

    hidden: int
    feed_forward: int
    layers: int
    heads: int
    kv_heads: int
    head: int
    vocabulary: int
    context: int | None
    tied: bool
    linears: tuple[Linear, ...]
    other_parameters: int

    @cached_property
    def linear_parameters(self) -> int:
        """Weights of all linear layers."""
        return sum(linear.parameters for linear in self.linears)

    @property
    def parameters(self) -> int:
        """All weights."""
        return self.linear_parameters + self.other_parameters

    @property
    def output_parameters(self) -> int:
        """Weights of the output layer, used at positions whose logits are needed."""
        return self.vocabulary * self.hidden

    def lora_parameters(self, rank: int, targets: Targets) -> int:
        """Return how many LoRA weights `rank` means: rank x (inputs + outputs) per layer."""
        return rank * sum(linear.inputs + linear.outputs for linear in self.trained(targets))

    def trained(self, targets: Targets) -> tuple[Linear, ...]:
        """Return the layers that get LoRA weights."""
        return tuple(linear for linear in self.linears if targets in ("all-linear", linear.part))

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes of one token's keys and values in llama.cpp's cache (f16)."""
        return 2 * 2 * self.layers * self.kv_heads * self.head


def read_shape(base_dir: Path) -> ModelShape:
    """Return the shape of the model in `base_dir`.

    Raises:
        ModelError: config.json or the weights are missing or unreadable, or the config names no sizes.
    """
    try:
        config = json.loads((base_dir / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{base_dir / 'config.json'} cannot be read: {error}. Copy the whole model.") from error
    linears, others = [], 0
    for name, shape in _tensor_shapes(base_dir):
        found = _IN_BLOCK.search(name)
        if found is not None and len(shape) == 2:
            part: Literal["attention", "mlp"] = "mlp" if found.group(1) == "mlp" else "attention"
            linears.append(Linear(part, shape[1], shape[0]))
        else:
            others += prod(shape)
    return shape_of(config, tuple(linears), others, str(base_dir))


def shape_of(
    config: Mapping[str, Any],
    linears: tuple[Linear, ...] | None = None,
    other_parameters: int | None = None,
    name: str = "The config",
) -> ModelShape:
    """Return the shape that a config.json describes.

    Args:
        linears, other_parameters: as counted in the weights; None = those of a Llama of these sizes.
        name: what errors call the model.

    Raises:
        ModelError: a size is missing.
    """
    sizes = config.get("text_config") or config
    try:
        hidden, layers, heads = (sizes[key] for key in ("hidden_size", "num_hidden_layers", "num_attention_heads"))
        feed_forward, vocabulary = sizes["intermediate_size"], sizes["vocab_size"]
    except KeyError as error:
        raise ModelError(f"{name}: config.json names no {error}; without it nothing can be estimated.") from error
    kv_heads = sizes.get("num_key_value_heads") or heads
    head = sizes.get("head_dim") or hidden // heads
    tied = bool(sizes.get("tie_word_embeddings", config.get("tie_word_embeddings", False)))
    if linears is None:
        linears = _llama_block(hidden, feed_forward, heads * head, kv_heads * head) * layers
    if other_parameters is None:
        other_parameters = vocabulary * hidden * (1 if tied else 2) + hidden * (2 * layers + 1)
    return ModelShape(
        hidden=hidden,
        feed_forward=feed_forward,
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        head=head,
        vocabulary=vocabulary,
        context=sizes.get("max_position_embeddings"),
        tied=tied,
        linears=linears,
        other_parameters=other_parameters,
    )


def _llama_block(hidden: int, feed_forward: int, queries: int, keys: int) -> tuple[Linear, ...]:
    return (
        Linear("attention", hidden, queries),
        Linear("attention", hidden, keys),
        Linear("attention", hidden, keys),
        Linear("attention", queries, hidden),
        Linear("mlp", hidden, feed_forward),
        Linear("mlp", hidden, feed_forward),
        Linear("mlp", feed_forward, hidden),
    )


def _tensor_shapes(base_dir: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
    for path in weight_files(base_dir):
        try:
            with path.open("rb") as file:
                header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        except (OSError, ValueError) as error:
            raise ModelError(f"{path} has no readable safetensors header: {error}. Copy it again.") from error
        for name, tensor in header.items():
            if name != "__metadata__":
                yield name, tuple(tensor["shape"])
