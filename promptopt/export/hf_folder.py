"""Reads a Hugging Face model folder without torch: JSON files, and safetensors weights as NumPy arrays.

Tensors are mapped from disk one at a time, so converting needs memory for one tensor, not for the model. Knows nothing
about architectures or GGUF.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from promptopt.errors import ExportError
from promptopt.extras import require

INDEX_NAME = "model.safetensors.index.json"
SINGLE_NAME = "model.safetensors"
_NUMPY_TYPES: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2")}


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; an absent file is an empty object.

    Raises:
        ExportError: the file is no JSON object.
    """
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ExportError(f"{path} is not valid JSON ({error}). Save or download the model again.") from error
    if not isinstance(found, dict):
        raise ExportError(f"{path} holds a {type(found).__name__}; a JSON object is expected. Save the model again.")
    return found


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One tensor in a safetensors file.

    Attributes:
        dtype: "F32", "F16" or "BF16".
        offset: bytes from the start of `file`.
    """

    name: str
    file: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int

    def load(self) -> npt.NDArray[np.float32]:
        """Return the values in float32, of shape `shape`; bfloat16 is the upper half of a float32."""
        stored: npt.NDArray[Any] = np.memmap(
            self.file, dtype=_NUMPY_TYPES[self.dtype], mode="r", offset=self.offset, shape=self.shape or (1,)
        )
        if self.dtype == "BF16":
            return (stored.astype(np.uint32) << np.uint32(16)).view(np.float32)
        return np.asarray(stored, dtype=np.float32)


def read_weights(hf_dir: Path) -> dict[str, StoredTensor]:
    """Return all weights of a folder with `model.safetensors` or a sharded index, by name.

    Raises:
        ExportError: no safetensors, a missing or damaged shard, or a data type that is not a plain float.
    """
    weights: dict[str, StoredTensor] = {}
    for file in _weight_files(hf_dir):
        for tensor in _read_header(file):
            weights[tensor.name] = tensor
    return weights


def read_tensors(file: Path) -> list[StoredTensor]:
    """Return the tensors of one safetensors file.

    Raises:
        ExportError: it is missing or damaged, or a data type is not a plain float.
    """
    if not file.is_file():
        raise ExportError(f"{file} is missing. Save or download the weights again.")
    return _read_header(file)


def _weight_files(hf_dir: Path) -> list[Path]:
    index = read_json(hf_dir / INDEX_NAME)
    names = sorted(set(index.get("weight_map", {}).values())) or [SINGLE_NAME]
    missing = [name for name in names if not (hf_dir / name).is_file()]
    if missing:
        raise ExportError(
            f"{hf_dir} lacks the weight file(s) {', '.join(missing)}. Needed are {SINGLE_NAME}, or {INDEX_NAME} with "
            "all its shards; save the model with save_pretrained(..., safe_serialization=True), or download it again."
        )
    return [hf_dir / name for name in names]


def _read_header(file: Path) -> list[StoredTensor]:
    safetensors = require("safetensors")
    try:
        # The library checks the header and that the file has the length it announces.
        with safetensors.safe_open(str(file), framework="np"):
            pass
    except (safetensors.SafetensorError, OSError) as error:
        raise ExportError(f"{file} is damaged or cut off ({error}). Save or download the model again.") from error
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(length))
    header.pop("__metadata__", None)
    return [_stored(name, file, entry, 8 + length) for name, entry in header.items()]


def _stored(name: str, file: Path, entry: dict[str, Any], data_start: int) -> StoredTensor:
    if entry["dtype"] not in _NUMPY_TYPES:
        raise ExportError(
            f"The tensor {name} in {file} has the data type {entry['dtype']}; allowed are {', '.join(_NUMPY_TYPES)}. "
            "Export the unquantized model (after training: the merged one)."
        )
    return StoredTensor(name, file, entry["dtype"], tuple(entry["shape"]), data_start + entry["data_offsets"][0])
