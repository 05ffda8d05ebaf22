"""The networks that can be exported: their names on both sides, and what llama.cpp's graph of each takes for granted.

Read from the model's `config.json` alone; shared by both converters and by LoRA weights.

Sources: llama.cpp's `src/models/*.cpp` for what its graphs compute, transformers' `modeling_*.py` for what is right.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from promptopt.errors import ExportError

ARCHITECTURES = {
    "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "llama",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
    "Gemma2ForCausalLM": "gemma2",
    "Gemma3ForCausalLM": "gemma3",
    "Phi3ForCausalLM": "phi3",
}
"""Hugging Face architecture -> GGUF architecture. Each has its tests against transformers."""

_GELU = ("gelu_pytorch_tanh",)
_SILU = ("silu", None)
_GLOBAL_EVERY = {"gemma2": 2, "gemma3": 6}
"""Every so many layers, llama.cpp's graph looks at the whole context; the others look through a window."""
_WIDE_HEADS = {("gemma2", 46), ("gemma3", 62)}
"""The 27B models, by layers: llama.cpp scales their attention by width / heads, that of the others by the head size."""


@dataclass(frozen=True, slots=True)
class Network:
    """What is known of every network.

    Attributes:
        named: Hugging Face's architecture.
        architecture: GGUF's name of it.
        exact_context: longest context over which llama.cpp computes what transformers computes; None = the model's own.
            Set where llama.cpp's graph leaves out the window that attention looks through, and where positions are
            scaled for long texts only: transformers chooses by the text, llama.cpp by how large its context is.
    """

    named: str
    architecture: str
    layers: int
    heads: int
    kv_heads: int
    exact_context: int | None = None

    @property
    def reorders_rotary_rows(self) -> bool:
        """Whether query and key rows stand in another order in GGUF."""
        return self.architecture == "llama"

    def rotary_heads(self, module: str) -> int | None:
        """Return how many heads a projection's rows form when they must be reordered; None when they must not."""
        if not self.reorders_rotary_rows:
            return None
        return {"q_proj": self.heads, "k_proj": self.kv_heads}.get(module)


def read_network(config: Mapping[str, Any], *, source: str) -> Network:
    """Read the network's kind from `config.json`.

    Args:
        config: the parsed file.
        source: what error messages call it.

    Raises:
        ExportError: an architecture that is not exported, a missing key, or a setting that llama.cpp's graph of this
            network would silently ignore.
    """
    named = (config.get("architectures") or ["(none)"])[0]
    if named not in ARCHITECTURES:
        raise ExportError(
            f"{source} is a {named}; export to GGUF supports {', '.join(ARCHITECTURES)}. Convert other models with "
            "llama.cpp's convert_hf_to_gguf.py and give the GGUF as model.gguf."
        )
    architecture = ARCHITECTURES[named]
    try:
        layers, heads = int(config["num_hidden_layers"]), int(config["num_attention_heads"])
    except KeyError as error:
        raise ExportError(f"{source} lacks the key {error}, without which the network cannot be built.") from error
    if architecture in _GLOBAL_EVERY:
        _check_gemma(config, architecture, layers, heads, source)
    else:
        allow(config, "hidden_act", _SILU, source)
    allow(config, "quantization_config", (None,), source)
    return Network(
        named=named,
        architecture=architecture,
        layers=layers,
        heads=heads,
        kv_heads=int(config.get("num_key_value_heads") or heads),
        exact_context=_exact_context(config, named),
    )


def _check_gemma(config: Mapping[str, Any], architecture: str, layers: int, heads: int, source: str) -> None:
    allow(config, "hidden_activation", _GELU, source)
    every = _GLOBAL_EVERY[architecture]
    pattern = ["full_attention" if (layer + 1) % every == 0 else "sliding_attention" for layer in range(layers)]
    allow(config, "layer_types", (pattern, None), source)
    if architecture == "gemma3":
        allow(config, "use_bidirectional_attention", (False, None), source)
    head_dim = config.get("head_dim")
    wide = (architecture, layers) in _WIDE_HEADS
    scale = config["hidden_size"] // heads if wide else head_dim
    allow(config, "query_pre_attn_scalar", (scale,), source)


def _exact_context(config: Mapping[str, Any], named: str) -> int | None:
    whole = int(config.get("max_position_embeddings", 0))
    windowed = named in ("MistralForCausalLM", "Phi3ForCausalLM") or bool(config.get("use_sliding_window"))
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    long_only = (rope.get("rope_type") or rope.get("type")) in ("longrope", "su")
    limits = (
        config.get("sliding_window") if windowed else None,
        rope.get("original_max_position_embeddings", config.get("original_max_position_embeddings"))
        if long_only
        else None,
    )
    return min((int(limit) for limit in limits if limit and limit < whole), default=None)


def allow(config: Mapping[str, Any], key: str, values: Sequence[Any], source: str) -> None:
    """Raise ExportError unless the value of `key` is one of `values`; None stands for an absent key."""
    if config.get(key) not in values:
        raise ExportError(
            f"{source} has {key} = {config.get(key)!r}; export to GGUF supports {' or '.join(map(repr, values))} "
            "(None: absent), because llama.cpp's graph of this network computes nothing else. Use a model without it."
        )


def reorder_rotary_rows(values: npt.NDArray[np.float32], heads: int) -> npt.NDArray[np.float32]:
    """Reorder the rows of a Llama query or key projection from Hugging Face's order to llama.cpp's.

    Hugging Face rotates row i of a head with row i + head_dim / 2, llama.cpp's `llama` rotates neighbours.

    Args:
        values: of shape (heads * head_dim, ...): a weight matrix or a bias.
        heads: query heads, or for a key projection key heads.
    """
    halves = values.reshape(heads, 2, values.shape[0] // heads // 2, *values.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(values.shape)
