"""Reads a GGUF file's header: what model it is, and whether the file is whole. Tensor data is never touched.

A small reader of its own: `gguf.GGUFReader` takes seconds for a large vocabulary, needs numpy and an extra, and does
not notice a file that ends too early, which llama.cpp answers with a crash.
"""

import mmap
import struct
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from promptopt.errors import ModelError

MAGIC = b"GGUF"
MetadataValue = str | int | float | bool | tuple[int | float | bool, ...]
MAX_ARRAY_KEPT = 64
MAX_COUNT = 1 << 24
MAX_DIMENSIONS = 4

_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY = 8, 9

TENSOR_TYPES: dict[int, tuple[str, int, int]] = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34), 9: ("Q8_1", 32, 36), 10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176), 14: ("Q6_K", 256, 210), 15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66), 17: ("IQ2_XS", 256, 74), 18: ("IQ3_XXS", 256, 98), 19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18), 21: ("IQ3_S", 256, 110), 22: ("IQ2_S", 256, 82), 23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1), 25: ("I16", 1, 2), 26: ("I32", 1, 4), 27: ("I64", 1, 8), 28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56), 30: ("BF16", 1, 2), 34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66), 39: ("MXFP4", 32, 17),
}  # fmt: skip
"""ggml type id -> (name, values per block, bytes per block)."""

FILE_TYPES = {
    0: "f32", 1: "f16", 2: "q4_0", 3: "q4_1", 7: "q8_0", 8: "q5_0", 9: "q5_1", 10: "q2_k", 11: "q3_k_s", 12: "q3_k_m",
    13: "q3_k_l", 14: "q4_k_s", 15: "q4_k_m", 16: "q5_k_s", 17: "q5_k_m", 18: "q6_k", 19: "iq2_xxs", 20: "iq2_xs",
    21: "q2_k_s", 22: "iq3_xs", 23: "iq3_xxs", 24: "iq1_s", 25: "iq4_nl", 26: "iq3_s", 27: "iq3_m", 28: "iq2_s",
    29: "iq2_m", 30: "iq4_xs", 31: "iq1_m", 32: "bf16", 36: "tq1_0", 37: "tq2_0", 38: "mxfp4",
}  # fmt: skip
"""`general.file_type` -> the name promptopt's configs use."""


@dataclass(frozen=True, slots=True)
class GgufInfo:
    """What a GGUF header says.

    Attributes:
        architecture: llama.cpp's name, e.g. "llama" or "qwen2".
        quantization: "q4_k_m", "f16", ...; the most frequent tensor type where the file does not say.
        n_params: number of weights in this file.
        n_ctx_train: tokens of context the model was trained for; 0 if the file does not say.
        size_bytes: size of the file.
        chat_template: the tokenizer's Jinja template; None if there is none.
        metadata: scalars, strings, and numeric arrays up to 64 long (vocabularies are left out).
        tensor_types: ggml type name -> number of tensors.
    """

    path: Path
    architecture: str
    quantization: str
    n_params: int
    n_ctx_train: int
    size_bytes: int
    chat_template: str | None
    metadata: dict[str, MetadataValue] = field(repr=False)
    tensor_types: dict[str, int]

    @property
    def has_chat_template(self) -> bool:
        """Whether chat prompts can be rendered."""
        return self.chat_template is not None


def read_gguf(path: Path | str) -> GgufInfo:
    """Read and check a GGUF header.

    Raises:
        ModelError: no such file, a folder, not a GGUF file, an unknown version, or shorter than its header promises.
    """
    path = Path(path)
    _check_is_file(path)
    size = path.stat().st_size
    with path.open("rb") as stream:
        head = stream.read(8)
        _check_magic(path, head)
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            try:
                return _Header(path, data, size).read()
            except (struct.error, IndexError, _CutShortError) as error:
                raise ModelError(
                    f"The GGUF file {path} is damaged or incomplete: its header ends in the middle ({size} bytes are "
                    "there). Download or export it again, and compare its size with the original."
                ) from error


class _CutShortError(Exception):
    """A length in the header points beyond the end of the file."""


def _check_is_file(path: Path) -> None:
    if path.is_dir():
        inside = sorted(p.name for p in path.glob("*.gguf"))[:5]
        hint = f" It holds {', '.join(inside)}: name one of them." if inside else ""
        raise ModelError(f"{path} is a folder, but a .gguf file is needed.{hint} `promptopt models` lists the models.")
    if not path.is_file():
        raise ModelError(
            f"There is no model file {path}. Check the path; `promptopt models` lists the GGUF files that were found."
        )


def _check_magic(path: Path, head: bytes) -> None:
    if len(head) < 8 or head[:4] != MAGIC:
        raise ModelError(
            f"{path} is not a GGUF file: it starts with {head[:4]!r} instead of {MAGIC!r}. Convert Hugging Face "
            "weights with `promptopt export`, and see whether a download saved an error page instead."
        )
    version = struct.unpack_from("<I", head, 4)[0]
    if version not in (2, 3):
        raise ModelError(
            f"{path} is a GGUF file of version {version}; versions 2 and 3 (little endian) can be read. "
            "Convert the model again with a current llama.cpp."
        )


class _Header:
    """A cursor over one file's header."""

    def __init__(self, path: Path, data: mmap.mmap, size: int) -> None:
        self.path, self.data, self.size, self.at = path, data, size, 8

    def read(self) -> GgufInfo:
        n_tensors, n_pairs = self.scalar("<Q"), self.scalar("<Q")
        if n_tensors > MAX_COUNT or n_pairs > MAX_COUNT:
            raise _CutShortError
        metadata: dict[str, MetadataValue] = {}
        for _ in range(n_pairs):
            key = self.string()
            value = self.value(self.scalar("<I"))
            if value is not None:
                metadata[key] = value
        types, n_params, end = self.tensors(n_tensors)
        alignment = _int(metadata, "general.alignment") or 32
        needed = -(-self.at // alignment) * alignment + end
        if n_tensors and needed > self.size:
            raise ModelError(
                f"The GGUF file {self.path} is incomplete: {self.size} bytes are there, its tensors need {needed}. "
                "Download or export it again."
            )
        return self.info(metadata, types, n_params)

    def info(self, metadata: dict[str, MetadataValue], types: Counter[str], n_params: int) -> GgufInfo:
        architecture = str(metadata.get("general.architecture", ""))
        template = metadata.get("tokenizer.chat_template")
        file_type = FILE_TYPES.get(_int(metadata, "general.file_type") if "general.file_type" in metadata else -1)
        common = types.most_common(1)[0][0].lower() if types else "unknown"
        return GgufInfo(
            path=self.path,
            architecture=architecture,
            quantization=file_type or common,
            n_params=n_params,
            n_ctx_train=_int(metadata, f"{architecture}.context_length"),
            size_bytes=self.size,
            chat_template=template if isinstance(template, str) and template else None,
            metadata=metadata,
            tensor_types=dict(types),
        )

    def tensors(self, count: int) -> tuple[Counter[str], int, int]:
        """Return tensor types, number of weights, and where the last tensor ends, counted from the data section."""
        types: Counter[str] = Counter()
        n_params = end = 0
        for _ in range(count):
            self.string()
            n_dims = self.scalar("<I")
            if n_dims > MAX_DIMENSIONS:
                raise _CutShortError
            n_values = 1
            for _ in range(n_dims):
                n_values *= self.scalar("<Q")
            kind, offset = self.scalar("<I"), self.scalar("<Q")
            # A type newer than this table cannot be measured; llama.cpp will say whether it knows it.
            name, per_block, block_bytes = TENSOR_TYPES.get(kind, (f"type {kind}", 1, 0))
            types[name] += 1
            n_params += n_values
            end = max(end, offset + n_values // per_block * block_bytes)
        return types, n_params, end

    def scalar(self, form: str) -> int:
        value: int = struct.unpack_from(form, self.data, self.at)[0]
        self.at += struct.calcsize(form)
        return value

    def string(self) -> str:
        length = self.scalar("<Q")
        if length > self.size - self.at:
            raise _CutShortError
        self.at += length
        return self.data[self.at - length : self.at].decode("utf-8", "replace")

    def value(self, kind: int) -> MetadataValue | None:
        """Read one value; None for what is skipped (arrays of strings, long arrays)."""
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            return self.array(self.scalar("<I"), self.scalar("<Q"))
        if kind not in _SCALARS:
            raise _CutShortError
        return self.scalar(_SCALARS[kind])

    def array(self, kind: int, count: int) -> MetadataValue | None:
        if kind in _SCALARS:
            width = struct.calcsize(_SCALARS[kind])
            if count * width > self.size - self.at:
                raise _CutShortError
            if count <= MAX_ARRAY_KEPT:
                return tuple(self.scalar(_SCALARS[kind]) for _ in range(count))
            self.at += count * width
            return None
        if count > self.size:
            raise _CutShortError
        if kind == _STRING:
            self.skip_strings(count)
        else:
            for _ in range(count):
                self.value(kind)
        return None

    def skip_strings(self, count: int) -> None:
        """Step over a vocabulary: the one loop whose speed matters (some hold 300,000 strings)."""
        unpack, data, at, size = struct.Struct("<Q").unpack_from, self.data, self.at, self.size
        for _ in range(count):
            at += 8 + unpack(data, at)[0]
            if at > size:
                raise _CutShortError
        self.at = at


def _int(metadata: dict[str, MetadataValue], key: str) -> int:
    value = metadata.get(key, 0)
    return int(value) if isinstance(value, int | float) else 0
