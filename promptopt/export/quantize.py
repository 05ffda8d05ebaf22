"""Quantizes a GGUF with llama.cpp's own quantizer, in a child process.

A child, because llama.cpp answers some broken inputs by aborting the process, and because its log belongs to whoever
runs an engine in this one.
"""

import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

from promptopt.errors import ExportError
from promptopt.export import quantize_worker
from promptopt.export.atomic import atomic_file, gguf_record
from promptopt.extras import require
from promptopt.records import GgufModel, Quantization

FILE_TYPES: dict[Quantization, str] = {
    "f32": "LLAMA_FTYPE_ALL_F32",
    "f16": "LLAMA_FTYPE_MOSTLY_F16",
    "q8_0": "LLAMA_FTYPE_MOSTLY_Q8_0",
    "q6_k": "LLAMA_FTYPE_MOSTLY_Q6_K",
    "q5_k_m": "LLAMA_FTYPE_MOSTLY_Q5_K_M",
    "q4_k_m": "LLAMA_FTYPE_MOSTLY_Q4_K_M",
    "q4_0": "LLAMA_FTYPE_MOSTLY_Q4_0",
}
"""Quantization -> name of llama.cpp's constant."""

_log = logging.getLogger(__name__)


def quantize_gguf(source: Path, out: Path, quantization: Quantization, *, n_threads: int | None = None) -> GgufModel:
    """Write `source` (f32 or f16) as `out` in another quantization.

    Rows that are no multiple of 256 cannot be held in a k-quant: llama.cpp then takes a larger type for those tensors,
    and a logged warning says for how many (`tensor_types` shows the result).

    Args:
        n_threads: CPU threads; None = llama.cpp's choice.

    Raises:
        ExportError: the source is missing or damaged, llama.cpp failed or crashed, or the disk is full; nothing
            half-written stays.
        MissingExtraError: llama-cpp-python is not installed.
    """
    if quantization not in FILE_TYPES:
        raise ExportError(f"The quantization is {quantization!r}; allowed are {', '.join(FILE_TYPES)}.")
    if not source.is_file():
        raise ExportError(f"{source} does not exist; make it with convert_to_gguf(hf_dir, ..., outtype='f16').")
    require("llama_cpp")
    with atomic_file(out) as temporary:
        chatter = _run_worker(source, temporary, quantization, n_threads)
    fallbacks = [line for line in chatter.splitlines() if "fallback" in line]
    if fallbacks:
        reason = fallbacks[-1].rpartition("WARNING:")[2].strip()
        _log.warning(
            "%s: rows that are no multiple of 256 do not fit %s, llama.cpp gave their tensors larger types: %s",
            out.name,
            quantization,
            reason,
        )
    return gguf_record(out, quantization)


def _run_worker(source: Path, out: Path, quantization: Quantization, n_threads: int | None) -> str:
    """Quantize in a child process; return what llama.cpp said."""
    # -P: the worker's own folder must not come before the standard library on the import path.
    command = [sys.executable, "-P", str(quantize_worker.__file__), str(source), str(out), FILE_TYPES[quantization]]
    child = subprocess.run(
        [*command, str(n_threads or 0)], capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL
    )
    if child.returncode == 0 and out.is_file():
        return child.stderr
    lines = [line.strip() for line in child.stderr.splitlines() if line.strip()]
    telling = [line for line in lines if "fail" in line.lower() or "error" in line.lower()] or lines
    raise ExportError(
        f"llama.cpp could not quantize {source} to {quantization} (exit code {child.returncode}). It said: "
        f"{' | '.join(telling[-3:]) or '(nothing)'}. The source must be a complete GGUF in f32 or f16 "
        f"(convert_to_gguf), and {out.parent} needs room for about {source.stat().st_size / 1e6:.0f} MB."
    )


def tensor_types(path: Path) -> dict[str, int]:
    """Return how many tensors of a GGUF have which type, e.g. {"Q4_K": 30, "F32": 11}."""
    gguf: Any = require("gguf")
    counts: dict[str, int] = {}
    for tensor in gguf.GGUFReader(path).tensors:
        counts[tensor.tensor_type.name] = counts.get(tensor.tensor_type.name, 0) + 1
    return counts
