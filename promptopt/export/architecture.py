"""What our own converter writes about a Llama or Qwen2 network: hyperparameters and how its tensors are laid out.

Read from the model's `config.json` alone. Knows nothing about files or tokenizers. `networks` knows all networks.

Sources: transformers' `modeling_rope_utils.py` for the rope scalings; llama.cpp's converter for the names of the keys
and the `rope_freqs` tensor.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from promptopt.errors import ExportError
from promptopt.export.networks import Network, allow, read_network

OWN = frozenset(("LlamaForCausalLM", "Qwen2ForCausalLM"))
"""Hugging Face architectures that our own converter writes, in this process and in a fraction of a second."""
ROPE_TYPES = ("default", "linear", "llama3", "yarn")


@dataclass(frozen=True, slots=True)
class Rope:
    """Rotary positions.

    Attributes:
        kind: one of `ROPE_TYPES`.
        factor: how many times longer than trained the context may be; 1 for "default".
        parameters: the model's own numbers for its kind (e.g. `low_freq_factor`).
    """

    theta: float
    kind: str
    factor: float
    parameters: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Hyperparameters:
    """The numbers llama.cpp needs to build the network.

    Attributes:
        network: kind, layers and heads.
        tied: whether the output matrix is the embedding matrix.
    """

    network: Network
    context: int
    width: int
    feed_forward: int
    head_dim: int
    rms_eps: float
    vocab_size: int
    tied: bool
    rope: Rope


def read_hyperparameters(config: Mapping[str, Any], *, source: str) -> Hyperparameters:
    """Read the network's numbers from `config.json`.

    Args:
        config: the parsed file.
        source: what error messages call it.

    Raises:
        ExportError: an architecture, activation or rope scaling that this export does not write, or a missing key.
    """
    network = read_network(config, source=source)
    _refuse_variants(config, source)
    try:
        width = int(config["hidden_size"])
        return Hyperparameters(
            network=network,
            context=int(config["max_position_embeddings"]),
            width=width,
            feed_forward=int(config["intermediate_size"]),
            head_dim=int(config.get("head_dim") or width // network.heads),
            rms_eps=float(config["rms_norm_eps"]),
            vocab_size=int(config["vocab_size"]),
            tied=bool(config.get("tie_word_embeddings", False)),
            rope=_read_rope(config, source),
        )
    except KeyError as error:
        raise ExportError(f"{source} lacks the key {error}, without which the network cannot be built.") from error


def _refuse_variants(config: Mapping[str, Any], source: str) -> None:
    """Stop at settings that only llama.cpp's own converter could write, or nobody."""
    allow(config, "use_sliding_window", (False, None), source)
    allow(config, "partial_rotary_factor", (1.0, None), source)


def _read_rope(config: Mapping[str, Any], source: str) -> Rope:
    # transformers 5 writes `rope_parameters`, earlier versions `rope_theta` and `rope_scaling`.
    parameters = config.get("rope_parameters") or config.get("rope_scaling") or {}
    theta = parameters.get("rope_theta", config.get("rope_theta")) or 10000.0
    kind = parameters.get("rope_type", parameters.get("type")) or "default"
    if kind not in ROPE_TYPES or parameters.get("partial_rotary_factor", 1.0) != 1.0:
        raise ExportError(
            f"{source} scales rotary positions by {dict(parameters)!r}; supported kinds are {', '.join(ROPE_TYPES)}, "
            "on whole heads."
        )
    factor = float(parameters["factor"]) if kind != "default" else 1.0
    return Rope(float(theta), kind, factor, parameters)


def rope_frequency_divisors(parameters: Hyperparameters) -> npt.NDArray[np.float32] | None:
    """Return what llama.cpp divides rotary frequencies by, of shape (head_dim / 2,); None unless kind is "llama3"."""
    rope = parameters.rope
    if rope.kind != "llama3":
        return None
    low, high = float(rope.parameters["low_freq_factor"]), float(rope.parameters["high_freq_factor"])
    trained = float(rope.parameters["original_max_position_embeddings"])
    divisors = []
    for index in range(0, parameters.head_dim, 2):
        turns = trained / (2 * math.pi * rope.theta ** (index / parameters.head_dim))
        if turns > high:
            divisors.append(1.0)
        elif turns < low:
            divisors.append(rope.factor)
        else:
            smooth = (turns - low) / (high - low)
            divisors.append(1 / ((1 - smooth) / rope.factor + smooth))
    return np.array(divisors, dtype=np.float32)


def add_hyperparameters(writer: Any, parameters: Hyperparameters) -> None:
    """Write all keys of the network to a `gguf.GGUFWriter`."""
    writer.add_block_count(parameters.network.layers)
    writer.add_context_length(parameters.context)
    writer.add_embedding_length(parameters.width)
    writer.add_feed_forward_length(parameters.feed_forward)
    writer.add_head_count(parameters.network.heads)
    writer.add_head_count_kv(parameters.network.kv_heads)
    writer.add_key_length(parameters.head_dim)
    writer.add_value_length(parameters.head_dim)
    writer.add_layer_norm_rms_eps(parameters.rms_eps)
    writer.add_vocab_size(parameters.vocab_size)
    writer.add_rope_dimension_count(parameters.head_dim)
    writer.add_rope_freq_base(parameters.rope.theta)
    _add_rope_scaling(writer, parameters.rope)


def _add_rope_scaling(writer: Any, rope: Rope) -> None:
    from promptopt.extras import require

    # "llama3" needs no keys: its divisors are a tensor.
    if rope.kind not in ("linear", "yarn"):
        return
    kinds = require("gguf").RopeScalingType
    writer.add_rope_scaling_type(kinds.LINEAR if rope.kind == "linear" else kinds.YARN)
    writer.add_rope_scaling_factor(rope.factor)
    if rope.kind == "yarn":
        writer.add_rope_scaling_orig_ctx_len(int(rope.parameters["original_max_position_embeddings"]))
        for key, add in (
            ("beta_fast", writer.add_rope_scaling_yarn_beta_fast),
            ("beta_slow", writer.add_rope_scaling_yarn_beta_slow),
        ):
            if rope.parameters.get(key):
                add(float(rope.parameters[key]))
