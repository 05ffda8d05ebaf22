"""A base model's folder on disk, checked before anything heavy is imported: complete, readable, what ends its turns."""

import hashlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from promptopt.errors import ModelError

logger = logging.getLogger(__name__)

_HASHED_WHOLE_BYTES = 256 * 2**20
_EDGE_BYTES = 2**20


def check_base_folder(base_dir: Path) -> None:
    """Prove that `base_dir` is a complete Hugging Face model folder: config, safetensors, tokenizer.

    Raises:
        ModelError: the folder or a file is missing, or a weights file is truncated; says which and what to do.
    """
    if not base_dir.is_dir():
        raise ModelError(f"The base model folder {base_dir} does not exist. Give the folder that holds config.json.")
    config = base_dir / "config.json"
    if not config.is_file():
        raise ModelError(f"{base_dir} has no config.json, so it is no Hugging Face model folder. Copy the whole model.")
    _read_json(config)
    if not any((base_dir / name).is_file() for name in ("tokenizer.json", "tokenizer.model", "vocab.json")):
        raise ModelError(f"{base_dir} has no tokenizer (tokenizer.json or tokenizer.model). Copy the whole model.")
    for shard in weight_files(base_dir):
        _check_safetensors(shard)


def weight_files(base_dir: Path) -> list[Path]:
    """Return the safetensors files of the model, which may not exist.

    Raises:
        ModelError: the folder names none.
    """
    index = base_dir / "model.safetensors.index.json"
    if index.is_file():
        shards = set(cast("dict[str, str]", _read_json(index).get("weight_map", {})).values())
        return [base_dir / name for name in sorted(shards)]
    single = base_dir / "model.safetensors"
    if not single.is_file():
        raise ModelError(
            f"{base_dir} has no model.safetensors and no model.safetensors.index.json. Pickled weights (.bin) are not "
            "read: save the model with model.save_pretrained(folder), which writes safetensors."
        )
    return [single]


def end_token_ids(base_dir: Path, tokenizer_eos: int | None) -> frozenset[int]:
    """Return the tokens at which generation stops: of generation_config.json, and the tokenizer's EOS."""
    found: set[int] = set() if tokenizer_eos is None else {tokenizer_eos}
    generation = base_dir / "generation_config.json"
    if generation.is_file():
        eos = _read_json(generation).get("eos_token_id")
        found.update(eos if isinstance(eos, list) else [] if eos is None else [eos])
    return frozenset(found)


def longest_context(base_dir: Path, wanted: int) -> int:
    """Return the longest row in tokens: `wanted`, or the model's context where that is shorter."""
    context = _read_json(base_dir / "config.json").get("max_position_embeddings")
    if isinstance(context, int) and context < wanted:
        logger.info("Rows are limited to the model's context of %d tokens", context)
        return context
    return wanted


def folder_hash(base_dir: Path) -> str:
    """Return a hash (64 hex digits) of every file that training reads from `base_dir`.

    Files above 256 MB count by size and by their first and last megabyte: a change elsewhere that keeps the size is
    not seen, in exchange for not reading tens of gigabytes at every start.
    """
    digest = hashlib.sha256()
    for path in sorted({*base_dir.glob("*.json"), *base_dir.glob("*.jinja"), *base_dir.glob("*.model")}):
        digest.update(path.name.encode() + file_hash(path).encode())
    for path in weight_files(base_dir):
        digest.update(path.name.encode() + file_hash(path).encode())
    return digest.hexdigest()


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file (64 hex digits); of a large one, that of its size and edges."""
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        if size > _HASHED_WHOLE_BYTES:
            digest.update(file.read(_EDGE_BYTES))
            file.seek(-_EDGE_BYTES, 2)
        for block in _blocks(file):
            digest.update(block)
    return digest.hexdigest()


def _blocks(file: Any) -> Iterator[bytes]:
    while block := file.read(_EDGE_BYTES):
        yield block


def _check_safetensors(path: Path) -> None:
    """Raise ModelError unless `path` is as long as its header says (8 bytes length, JSON header, tensors)."""
    if not path.is_file():
        raise ModelError(f"{path} is missing; the model's index names it. Copy the whole model.")
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            header_bytes = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(header_bytes)) if 0 < header_bytes <= size - 8 else None
    except ValueError:
        header = None
    if not isinstance(header, dict):
        raise ModelError(
            f"{path} ({size} bytes) has no safetensors header: truncated, or another format. Copy it again."
        )
    ends = [int(tensor["data_offsets"][1]) for name, tensor in header.items() if name != "__metadata__"]
    expected = 8 + header_bytes + max(ends, default=0)
    if size != expected:
        raise ModelError(f"{path} has {size} bytes, its header says {expected}: truncated or damaged. Copy it again.")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read as JSON: {error}. Copy the model again.") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path} holds no JSON object. Copy the model again.")
    return cast("dict[str, Any]", value)
