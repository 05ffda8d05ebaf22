"""Tiny random models whose cache is not a plain one: Mamba (a recurrent state) and Gemma 2 (sliding windows)."""

from pathlib import Path
from typing import Any

import numpy as np

from tests.fixtures_gguf import CHATML, _add_tokenizer, tiny_tokenizer


def _start(path: Path, architecture: str, width: int, layers: int, feed_forward: int) -> Any:
    import gguf

    writer = gguf.GGUFWriter(path, architecture)
    writer.add_context_length(1024)
    writer.add_embedding_length(width)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(feed_forward)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_file_type(0)
    _add_tokenizer(writer, CHATML)
    return writer


def _finish(writer: Any, tensors: dict[str, np.ndarray[Any, Any]], path: Path) -> Path:
    for name, values in tensors.items():
        writer.add_tensor(name, values.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def write_tiny_mamba(path: Path, *, width: int = 64, layers: int = 2) -> Path:
    """Write a random Mamba, whose state can be copied but not cut back."""
    inner, state, rank, conv = 2 * width, 16, 8, 4
    writer = _start(path, "mamba", width, layers, 0)
    writer.add_ssm_conv_kernel(conv)
    writer.add_ssm_inner_size(inner)
    writer.add_ssm_state_size(state)
    writer.add_ssm_time_step_rank(rank)
    rng = np.random.default_rng(0)

    def matrix(*shape: int) -> np.ndarray[Any, Any]:
        return rng.standard_normal(shape) / np.sqrt(shape[-1])

    tensors: dict[str, np.ndarray[Any, Any]] = {
        "token_embd.weight": rng.standard_normal((tiny_tokenizer().get_vocab_size(), width)),
        "output_norm.weight": np.ones(width),
    }
    for layer in range(layers):
        prefix = f"blk.{layer}."
        tensors |= {
            prefix + "attn_norm.weight": np.ones(width),
            prefix + "ssm_in.weight": matrix(2 * inner, width),
            prefix + "ssm_conv1d.weight": matrix(inner, conv),
            prefix + "ssm_conv1d.bias": np.zeros(inner),
            prefix + "ssm_x.weight": matrix(rank + 2 * state, inner),
            prefix + "ssm_dt.weight": matrix(inner, rank),
            prefix + "ssm_dt.bias": np.zeros(inner),
            prefix + "ssm_a": -np.tile(np.arange(1.0, state + 1), (inner, 1)),
            prefix + "ssm_d": np.ones(inner),
            prefix + "ssm_out.weight": matrix(width, inner),
        }
    return _finish(writer, tensors, path)


def write_tiny_gemma2(path: Path, *, width: int = 64, layers: int = 2, window: int = 32) -> Path:
    """Write a random Gemma 2: every other layer sees only the last `window` tokens."""
    heads, kv_heads, hidden = 4, 2, 2 * width
    writer = _start(path, "gemma2", width, layers, hidden)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_key_length(width // heads)
    writer.add_value_length(width // heads)
    writer.add_sliding_window(window)
    writer.add_attn_logit_softcapping(50.0)
    writer.add_final_logit_softcapping(30.0)
    rng = np.random.default_rng(0)

    def matrix(*shape: int) -> np.ndarray[Any, Any]:
        return 2 * rng.standard_normal(shape) / np.sqrt(shape[-1])

    tensors: dict[str, np.ndarray[Any, Any]] = {
        "token_embd.weight": rng.standard_normal((tiny_tokenizer().get_vocab_size(), width)) / 8,
        "output_norm.weight": np.ones(width),
    }
    kv_width = width // heads * kv_heads
    for layer in range(layers):
        prefix = f"blk.{layer}."
        norms = ("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm")
        tensors |= {f"{prefix}{name}.weight": np.ones(width) for name in norms}
        tensors |= {
            prefix + "attn_q.weight": matrix(width, width),
            prefix + "attn_k.weight": matrix(kv_width, width),
            prefix + "attn_v.weight": matrix(kv_width, width),
            prefix + "attn_output.weight": matrix(width, width),
            prefix + "ffn_gate.weight": matrix(hidden, width),
            prefix + "ffn_up.weight": matrix(hidden, width),
            prefix + "ffn_down.weight": matrix(width, hidden),
        }
    return _finish(writer, tensors, path)
