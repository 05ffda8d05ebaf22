"""Finds the models on this machine, for `promptopt models`: GGUF files and Hugging Face folders. Reads headers only."""

import json
import os
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from promptopt.errors import ModelError
from promptopt.lm.gguf_info import read_gguf

MODELS_VARIABLE = "PROMPTOPT_MODELS"
MAX_HEADER_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """One model that was found.

    Attributes:
        path: the .gguf file, or the folder with config.json.
        architecture: "llama", "LlamaForCausalLM", ...; empty if unknown.
        precision: quantization of a GGUF ("q4_k_m"), dtype of Hugging Face weights ("bfloat16"); empty if unknown.
        n_ctx_train: tokens of context; 0 if unknown.
        n_params: weights; 0 if unknown.
        size_bytes: bytes on disk.
        has_chat_template: whether chat prompts can be rendered.
        problem: why it cannot be used; empty if nothing is known against it.
    """

    path: Path
    format: Literal["gguf", "hf"]
    architecture: str = ""
    precision: str = ""
    n_ctx_train: int = 0
    n_params: int = 0
    size_bytes: int = 0
    has_chat_template: bool = False
    problem: str = ""


def model_folders(folders: Sequence[Path | str] = ()) -> list[Path]:
    """Return where models are looked for: `folders`, $PROMPTOPT_MODELS, ./models, and the Hugging Face hub's cache."""
    named = [part for part in os.environ.get(MODELS_VARIABLE, "").split(os.pathsep) if part]
    hub_home = Path(os.environ.get("HF_HOME") or "~/.cache/huggingface").expanduser()
    hub = Path(os.environ.get("HF_HUB_CACHE") or hub_home / "hub").expanduser()
    return [Path(part).expanduser() for part in (*folders, *named, Path("models"), hub)]


def find_models(folders: Sequence[Path | str] = ()) -> list[ModelInfo]:
    """List the models in `model_folders(folders)`, sorted by path; a broken one is listed with its problem."""
    paths: dict[Path, Path] = {}
    for folder in model_folders(folders):
        for path in _candidates(folder):
            # The hub links many names to one file; the first name stands for all.
            paths.setdefault(path.resolve(), path)
    return [_describe(path) for path in sorted(paths.values())]


def _candidates(folder: Path) -> Iterator[Path]:
    """Yield .gguf files and folders with a config.json below `folder` (or `folder` itself, if it is such a file)."""
    if folder.is_file() and folder.suffix == ".gguf":
        yield folder
    for place, folders, files in os.walk(folder, onerror=lambda error: None):
        # "blobs" holds the hub's files under their hashes; "snapshots" links to them under their names.
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name != "blobs")
        yield from (Path(place) / name for name in files if name.endswith(".gguf"))
        if "config.json" in files and any(name.endswith((".safetensors", ".bin")) for name in files):
            yield Path(place)


def _describe(path: Path) -> ModelInfo:
    kind: Literal["gguf", "hf"] = "gguf" if path.suffix == ".gguf" else "hf"
    try:
        return _describe_gguf(path) if kind == "gguf" else _describe_folder(path)
    except (ModelError, OSError, ValueError, TypeError, struct.error) as error:
        size = path.stat().st_size if path.is_file() else 0
        return ModelInfo(path, kind, size_bytes=size, problem=str(error))


def _describe_gguf(path: Path) -> ModelInfo:
    info = read_gguf(path)
    return ModelInfo(
        path=path,
        format="gguf",
        architecture=info.architecture,
        precision=info.quantization,
        n_ctx_train=info.n_ctx_train,
        n_params=info.n_params,
        size_bytes=info.size_bytes,
        has_chat_template=info.has_chat_template,
        problem="" if info.has_chat_template else "no chat template: chat prompts cannot be rendered",
    )


def _describe_folder(folder: Path) -> ModelInfo:
    config = _read_object(folder / "config.json")
    weights = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("*.bin"))
    nested = config.get("text_config")
    # Multimodal models keep the language model's settings one level deeper.
    text = nested if isinstance(nested, dict) else {}
    architectures = config.get("architectures")
    precision = config.get("dtype") or config.get("torch_dtype") or text.get("dtype") or text.get("torch_dtype") or ""
    context = config.get("max_position_embeddings") or text.get("max_position_embeddings") or config.get("n_positions")
    tokenizer = folder / "tokenizer_config.json"
    return ModelInfo(
        path=folder,
        format="hf",
        architecture=str(architectures[0]) if isinstance(architectures, list) and architectures else "",
        precision=str(precision),
        n_ctx_train=context if isinstance(context, int) else 0,
        n_params=sum(_safetensors_params(p) for p in weights if p.suffix == ".safetensors"),
        size_bytes=sum(p.stat().st_size for p in weights),
        has_chat_template=(folder / "chat_template.jinja").is_file()
        or (tokenizer.is_file() and "chat_template" in _read_object(tokenizer)),
    )


def _read_object(path: Path) -> dict[str, object]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{path} is not JSON: {error}. Download the model again.") from error
    if not isinstance(found, dict):
        raise ModelError(f"{path} holds no JSON object. Download the model again.")
    return found


def _safetensors_params(path: Path) -> int:
    """Count weights from a safetensors header.

    Raises:
        ModelError: the file is shorter than its header says.
    """
    size = path.stat().st_size
    with path.open("rb") as stream:
        length = struct.unpack("<Q", stream.read(8))[0]
        if length > min(MAX_HEADER_BYTES, size):
            raise ModelError(f"{path} is damaged: its header is longer than the file. Download it again.")
        header = json.loads(stream.read(length))
    tensors = [entry for name, entry in header.items() if name != "__metadata__"]
    needed = 8 + length + max((entry["data_offsets"][1] for entry in tensors), default=0)
    if needed > size:
        raise ModelError(f"{path} is incomplete: {size} bytes are there, {needed} are needed. Download it again.")
    return sum(_product(entry["shape"]) for entry in tensors)


def _product(numbers: Iterable[int]) -> int:
    result = 1
    for number in numbers:
        result *= number
    return result
