"""Writes a Hugging Face model folder as one GGUF file in f32 or f16.

Llama (with all rope scalings of Llama 3.x) and Qwen2 are written here, in a fraction of a second and without torch; the
other networks by llama.cpp's own converter (`converter`). Matrices are written in the type asked for, norms and biases
always in f32, as llama.cpp expects.
"""

import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from promptopt.errors import ExportError
from promptopt.export.architecture import (
    OWN,
    Hyperparameters,
    add_hyperparameters,
    read_hyperparameters,
    rope_frequency_divisors,
)
from promptopt.export.atomic import atomic_file, gguf_record
from promptopt.export.converter import run_converter
from promptopt.export.gguf_tokenizer import GgufTokenizer, add_tokenizer
from promptopt.export.hf_folder import StoredTensor, read_json, read_weights
from promptopt.export.networks import Network, read_network, reorder_rotary_rows
from promptopt.export.tokenizer import read_tokenizer
from promptopt.extras import require
from promptopt.records import GgufModel

OutType = Literal["f32", "f16"]
METADATA_PREFIX = "promptopt."
_log = logging.getLogger(__name__)
ALLOWED_GENERAL = frozenset(f"general.{key}" for key in ("name", "description", "author", "license", "version", "url"))


@dataclass(frozen=True, slots=True)
class _Tensor:
    """One tensor of the GGUF: its name, its shape, and where its values come from."""

    name: str
    shape: tuple[int, ...]
    stored: StoredTensor | npt.NDArray[np.float32]
    rotary_heads: int | None = None

    def values(self) -> npt.NDArray[np.float32]:
        loaded = self.stored.load() if isinstance(self.stored, StoredTensor) else self.stored
        return reorder_rotary_rows(loaded, self.rotary_heads) if self.rotary_heads else loaded


def convert_to_gguf(
    hf_dir: Path,
    out: Path,
    *,
    outtype: OutType = "f16",
    metadata: Mapping[str, str] | None = None,
    pre_tokenizer: str | None = None,
) -> GgufModel:
    """Write the model in `hf_dir` as GGUF.

    Args:
        hf_dir: folder with `config.json`, safetensors (bf16, f16 or f32; one file or shards) and `tokenizer.json`.
        out: the GGUF; an older file is replaced when the new one is complete.
        outtype: type of the matrices.
        metadata: extra string keys: `promptopt.*`, and `general.name`, `.description`, `.author`, ...
        pre_tokenizer: llama.cpp's name of the pre-tokenizer, for one whose structure is known neither here nor to
            llama.cpp's converter. Never guessed.

    Raises:
        ExportError: a model or tokenizer that cannot be written faithfully, llama.cpp's converter is needed and not
            there, or a full disk; nothing half-written stays.
        MissingExtraError: gguf or safetensors is not installed; for the other networks also torch, transformers.
    """
    if outtype not in ("f32", "f16"):
        raise ExportError(f"outtype is {outtype!r}; allowed are 'f32' and 'f16'; quantize_gguf makes the others.")
    metadata = {"general.name": hf_dir.resolve().name, **(metadata or {})}
    _check_metadata(metadata)
    config = read_json(hf_dir / "config.json")
    if not config:
        raise ExportError(f"{hf_dir} has no config.json; give a Hugging Face model folder.")
    network = read_network(config, source=str(hf_dir / "config.json"))
    tokenizer = read_tokenizer(hf_dir, _vocab_size(config, hf_dir))
    if pre_tokenizer is not None:
        tokenizer = replace(tokenizer, pre_tokenizer=pre_tokenizer)
    metadata["general.name"] = _stripping_name(metadata["general.name"], tokenizer.strips_right)
    with atomic_file(out) as temporary:
        if network.named in OWN and tokenizer.pre_tokenizer is not None:
            parameters = read_hyperparameters(config, source=str(hf_dir / "config.json"))
            _write(temporary, parameters, tokenizer, list(_tensors(hf_dir, parameters)), outtype, metadata)
        else:
            _say_what_is_lost(network, config)
            run_converter(hf_dir, temporary, network, tokenizer, outtype, metadata)
    return gguf_record(out, outtype)


def _vocab_size(config: Mapping[str, Any], hf_dir: Path) -> int:
    if "vocab_size" not in config:
        raise ExportError(f"{hf_dir / 'config.json'} lacks the key 'vocab_size', without which no token can be named.")
    return int(config["vocab_size"])


def _stripping_name(name: str, strips_right: bool) -> str:
    """Return the model's name, from which alone llama.cpp learns whether tokens swallow the white space behind them."""
    said = any(word in name.lower() for word in ("phi-3", "phi3"))
    if strips_right and not said:
        return f"{name} (Phi-3)"
    return re.sub("phi-?3", "phi 3", name, flags=re.IGNORECASE) if said and not strips_right else name


def _say_what_is_lost(network: Network, config: Mapping[str, Any]) -> None:
    if network.exact_context is not None:
        _log.warning(
            "The GGUF's context is %d tokens instead of %s: so far llama.cpp computes what transformers does with this "
            "%s; beyond, attention windows or long positions differ.",
            network.exact_context,
            config.get("max_position_embeddings"),
            network.named,
        )


def _check_metadata(metadata: Mapping[str, str]) -> None:
    wrong = [key for key in metadata if not key.startswith(METADATA_PREFIX) and key not in ALLOWED_GENERAL]
    if wrong:
        raise ExportError(
            f"The metadata key(s) {', '.join(wrong)} cannot be written; allowed are {METADATA_PREFIX}* and "
            f"{', '.join(sorted(ALLOWED_GENERAL))}."
        )


def _tensors(hf_dir: Path, parameters: Hyperparameters) -> Iterator[_Tensor]:
    """Yield what the GGUF will hold.

    Raises:
        ExportError: a weight that the architecture does not have, or one that is missing.
    """
    weights = read_weights(hf_dir)
    if parameters.tied:
        weights.pop("lm_head.weight", None)
    names = _gguf_names(weights, parameters, hf_dir)
    divisors = rope_frequency_divisors(parameters)
    if divisors is not None:
        yield _Tensor("rope_freqs.weight", divisors.shape, divisors)
    for stored in weights.values():
        if stored.name in names:
            module = stored.name.split(".")[-2]
            yield _Tensor(names[stored.name], stored.shape, stored, parameters.network.rotary_heads(module))


def _gguf_names(weights: Mapping[str, StoredTensor], parameters: Hyperparameters, hf_dir: Path) -> dict[str, str]:
    """Return weight name -> GGUF name, having checked that nothing is missing or left over."""
    gguf = require("gguf")
    architecture, layers = parameters.network.architecture, parameters.network.layers
    name_map = gguf.get_tensor_name_map(gguf.MODEL_ARCH[architecture.upper()], layers)
    found = {name: name_map.get_name(name, try_suffixes=(".weight", ".bias")) for name in weights}
    # Old checkpoints store the rotary frequencies, which follow from the configuration.
    unknown = [name for name, target in found.items() if target is None and not name.endswith("rotary_emb.inv_freq")]
    if unknown:
        raise ExportError(
            f"{hf_dir} holds weights that a {architecture} of {layers} layers does not have: "
            f"{', '.join(sorted(unknown)[:5])}. Merge LoRA weights first (merge_lora), and check config.json."
        )
    missing = _required_names(parameters) - set(found.values())
    if missing:
        raise ExportError(
            f"{hf_dir} lacks the weights of {', '.join(sorted(missing)[:5])} ({len(missing)} in all) that its "
            "config.json announces. Save or download the model again."
        )
    return {name: target for name, target in found.items() if target is not None}


def _required_names(parameters: Hyperparameters) -> set[str]:
    parts = ["attn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_norm", "ffn_gate", "ffn_up", "ffn_down"]
    names = {f"blk.{layer}.{part}.weight" for layer in range(parameters.network.layers) for part in parts}
    if parameters.network.architecture == "qwen2":
        names |= {f"blk.{layer}.attn_{part}.bias" for layer in range(parameters.network.layers) for part in "qkv"}
    return names | {"token_embd.weight", "output_norm.weight"} | (set() if parameters.tied else {"output.weight"})


def _write(
    path: Path,
    parameters: Hyperparameters,
    tokenizer: GgufTokenizer,
    tensors: list[_Tensor],
    outtype: OutType,
    metadata: Mapping[str, str],
) -> None:
    """Write header, keys and tensors; tensors are loaded and written one after the other."""
    gguf = require("gguf")
    writer = gguf.GGUFWriter(path, parameters.network.architecture)
    try:
        writer.add_type("model")
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        writer.add_file_type({"f32": gguf.LlamaFileType.ALL_F32, "f16": gguf.LlamaFileType.MOSTLY_F16}[outtype])
        for key, value in metadata.items():
            writer.add_string(key, value)
        add_hyperparameters(writer, parameters)
        add_tokenizer(writer, tokenizer)
        for tensor in tensors:
            kind = _stored_type(tensor, outtype)
            writer.add_tensor_info(tensor.name, tensor.shape, kind, int(np.prod(tensor.shape)) * kind.itemsize)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for tensor in tensors:
            writer.write_tensor_data(_converted(tensor, _stored_type(tensor, outtype)))
    finally:
        writer.close()


def _stored_type(tensor: _Tensor, outtype: OutType) -> np.dtype[Any]:
    return np.dtype(np.float16 if outtype == "f16" and len(tensor.shape) > 1 else np.float32)


def _converted(tensor: _Tensor, kind: np.dtype[Any]) -> npt.NDArray[Any]:
    values = tensor.values()
    with np.errstate(over="ignore"):
        converted = values.astype(kind)
    if not np.isfinite(converted).all():
        largest = float(np.nanmax(np.abs(values)))
        raise ExportError(
            f"The tensor {tensor.name} has values that {kind.name} cannot hold (largest {largest:g}, or not a number). "
            "Use outtype='f32' if they are finite; else the training diverged: lower the learning rate."
        )
    return np.ascontiguousarray(converted)
