"""Runs llama.cpp's own converter in a child process, for the networks that ours does not write.

A child, because the converter brings its own `gguf` package, and memory that a conversion takes goes back with it.
The tokenizer is written by our code here too: llama.cpp's needs `tokenizer.model` for half of these models, which
transformers 5 no longer saves, and knows one end token of several.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from promptopt.errors import ExportError
from promptopt.export import converter_worker
from promptopt.export.converter_source import find_converter
from promptopt.export.gguf_tokenizer import GgufTokenizer, add_tokenizer
from promptopt.export.hf_folder import read_json, read_weights
from promptopt.export.networks import Network
from promptopt.export.pre_tokenizer import unknown_pre_tokenizer
from promptopt.extras import require

_NOT_PASSED_ON = frozenset(("PYTHONPATH", "PYTHONSTARTUP", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"))
_ADDED = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "PYTHONIOENCODING": "utf-8"}


class _Calls:
    """Stands in for a `gguf.GGUFWriter`: keeps the calls, which the child repeats on the converter's own writer."""

    def __init__(self) -> None:
        self.made: list[tuple[str, tuple[Any, ...]]] = []

    def __getattr__(self, method: str) -> Callable[..., None]:
        return lambda *arguments: self.made.append((method, arguments))


def run_converter(
    hf_dir: Path, out: Path, network: Network, tokenizer: GgufTokenizer, outtype: str, metadata: Mapping[str, str]
) -> None:
    """Write the model in `hf_dir` to `out` with llama.cpp's converter. Takes seconds: the child imports torch.

    Args:
        tokenizer: if its `pre_tokenizer` is None, llama.cpp's converter is asked for the name.
        metadata: string keys.

    Raises:
        ExportError: the converter is not there, refuses the model or fails, a value does not fit `outtype`, or
            llama.cpp cannot load the result. `out` may then be half-written.
        MissingExtraError: torch, transformers or safetensors is not installed.
    """
    source = find_converter()
    for module in ("torch", "transformers"):
        require(module)
    read_weights(hf_dir)  # says what is wrong with the files; and the converter would read pickles where there are none
    calls = _Calls()
    add_tokenizer(calls, tokenizer)
    if network.exact_context is not None:
        calls.add_context_length(network.exact_context)
    for key, value in metadata.items():
        calls.add_string(key, value)
    request = {
        "source": str(source),
        "model": str(hf_dir.absolute()),
        "out": str(out.absolute()),
        "outtype": outtype,
        "calls": calls.made,
        "pre_tokenizer": tokenizer.pre_tokenizer is None,
    }
    # -P: the worker's own folder must not come before the standard library on the import path.
    child = subprocess.run(
        [sys.executable, "-P", str(converter_worker.__file__)],
        input=json.dumps(request),
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        env={name: value for name, value in os.environ.items() if name not in _NOT_PASSED_ON} | _ADDED,
    )
    if child.returncode == converter_worker.UNKNOWN_PRE_TOKENIZER:
        raise unknown_pre_tokenizer(read_json(hf_dir / "tokenizer.json"), source=str(hf_dir / "tokenizer.json"))
    if child.returncode != 0:
        lines = [line.strip() for line in child.stderr.splitlines() if line.strip()]
        raise ExportError(
            f"llama.cpp's converter could not write {hf_dir} as {outtype} (exit code {child.returncode}). It said: "
            f"{lines[-1] if lines else '(nothing)'} The folder must be a whole model; a value that does not fit is "
            "written with outtype='f32', unless training diverged."
        )
