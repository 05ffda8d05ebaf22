"""Writes PEFT's LoRA weights as a LoRA GGUF, which llama.cpp applies at run time to the base it was trained on.

No merge and no torch: a trial of a study can be scored on the quantized base a moment after its training ended. DoRA,
weights on `lm_head` or the embeddings, and per-layer ranks are refused: llama.cpp would apply something else.

Sources: llama.cpp's `llama-adapter.cpp` for the keys and shapes; LoRA (arXiv 2106.09685), rsLoRA (arXiv 2312.03732).
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from promptopt.errors import ExportError
from promptopt.export.atomic import atomic_file, gguf_record
from promptopt.export.hf_folder import read_json, read_tensors
from promptopt.export.networks import Network, read_network, reorder_rotary_rows
from promptopt.extras import require
from promptopt.records import GgufModel

LORA_CONFIG = "adapter_config.json"
LORA_WEIGHTS = "adapter_model.safetensors"
_NAME = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<part>[AB])\.weight")
_ALLOWED_PARTS = frozenset(
    ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "qkv_proj", "gate_up_proj")
)


def convert_lora(lora_dir: Path, base_dir: Path, out: Path) -> GgufModel:
    """Write the LoRA weights in `lora_dir` as a LoRA GGUF in f32.

    Its scale is as trained: llama.cpp multiplies by alpha / rank; for rsLoRA alpha * sqrt(rank) is written as alpha.

    Args:
        lora_dir: PEFT's folder with `adapter_config.json` and `adapter_model.safetensors`.
        base_dir: the Hugging Face folder of the base; only its `config.json` is read.
        out: the GGUF; an older file is replaced when the new one is complete.

    Raises:
        ExportError: weights that llama.cpp cannot apply as they were trained, a missing file, or a full disk.
        MissingExtraError: gguf or safetensors is not installed.
    """
    config = read_json(lora_dir / LORA_CONFIG)
    if not config:
        raise ExportError(f"{lora_dir} has no {LORA_CONFIG}; give PEFT's folder of LoRA weights (stage finetune).")
    alpha = _effective_alpha(config, lora_dir)
    base_config = read_json(base_dir / "config.json")
    if not base_config:
        raise ExportError(f"{base_dir} has no config.json; give the Hugging Face folder of the base.")
    network = read_network(base_config, source=str(base_dir / "config.json"))
    tensors = _tensors(lora_dir, network)
    with atomic_file(out) as temporary:
        _write(temporary, network.architecture, alpha, tensors)
    return gguf_record(out, "f32")


def _effective_alpha(config: Mapping[str, Any], lora_dir: Path) -> float:
    refused = {
        "use_dora": "DoRA changes the magnitudes of the base's weights",
        "modules_to_save": "whole modules were trained beside the LoRA weights",
        "rank_pattern": "layers have ranks of their own",
        "alpha_pattern": "layers have alphas of their own",
        "lora_bias": "biases were trained",
    }
    for key, reason in refused.items():
        if config.get(key):
            raise ExportError(
                f"{lora_dir} has {key} = {config[key]!r}: {reason}, which a LoRA GGUF cannot say. Merge the weights "
                "instead (merge_lora), or train without it."
            )
    rank, alpha = int(config["r"]), float(config["lora_alpha"])
    return alpha * math.sqrt(rank) if config.get("use_rslora") else alpha


def _tensors(lora_dir: Path, network: Network) -> dict[str, np.ndarray[Any, Any]]:
    """Return GGUF name -> values: `lora_a` (rank, in) and `lora_b` (out, rank) of each matrix."""
    gguf = require("gguf")
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[network.architecture.upper()], network.layers)
    found: dict[str, np.ndarray[Any, Any]] = {}
    for stored in read_tensors(lora_dir / LORA_WEIGHTS):
        match = _NAME.fullmatch(stored.name)
        layer = match["module"].rsplit(".", 1)[-1] if match else ""
        target = names.get_name(f"{match['module']}.weight", try_suffixes=(".weight",)) if match else None
        if match is None or target is None or layer not in _ALLOWED_PARTS:
            raise ExportError(
                f"{lora_dir} holds {stored.name}, which llama.cpp cannot apply at run time; it takes LoRA weights of "
                f"{', '.join(sorted(_ALLOWED_PARTS))}. Merge the weights instead (merge_lora)."
            )
        values = stored.load()
        heads = network.rotary_heads(layer)
        if match["part"] == "B" and heads:
            # The update's rows are those of the matrix, so they move with them.
            values = reorder_rotary_rows(values, heads)
        found[f"{target}.lora_{match['part'].lower()}"] = np.ascontiguousarray(values, dtype=np.float32)
    if not found or not all(np.isfinite(values).all() for values in found.values()):
        raise ExportError(f"{lora_dir} holds no LoRA weights, or some that are not finite: the training diverged.")
    return dict(sorted(found.items()))


def _write(path: Path, architecture: str, alpha: float, tensors: Mapping[str, np.ndarray[Any, Any]]) -> None:
    gguf = require("gguf")
    writer = gguf.GGUFWriter(path, architecture)
    try:
        writer.add_type("adapter")
        writer.add_string("adapter.type", "lora")
        writer.add_float32("adapter.lora.alpha", alpha)
        for name, values in tensors.items():
            writer.add_tensor(name, values)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()
