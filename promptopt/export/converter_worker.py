"""The child process of `converter`: llama.cpp's own converter on one model. Run as a file, without promptopt.

Reads one JSON object from standard input:
    source: folder with llama.cpp's `conversion` and `gguf-py`.
    model, out, outtype: Hugging Face folder, GGUF to write, "f32" or "f16".
    calls: [[method of gguf.GGUFWriter, [arguments]], ...] that write the tokenizer and all other keys of ours.
    pre_tokenizer: whether llama.cpp's converter is asked for the name of the pre-tokenizer.
Ends with exit code 0, or with the reason in the last line on standard error.
"""

import ctypes
import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import Any

UNKNOWN_PRE_TOKENIZER = 3
"""Exit code: llama.cpp's converter does not know this pre-tokenizer either."""


def main() -> int:
    """Convert; return the exit code."""
    request: dict[str, Any] = json.load(sys.stdin)
    source, out = Path(request["source"]), Path(request["out"])
    # The converter belongs to the gguf package beside it, not to the installed one.
    os.environ["NO_LOCAL_GGUF"] = "1"
    sys.path[:0] = [str(source / "gguf-py"), str(source)]
    import torch

    with torch.inference_mode():
        known = _convert(request, out)
    if not known:
        return UNKNOWN_PRE_TOKENIZER
    reason = _not_finite(out) or _not_loadable(out)
    if reason:
        sys.stderr.write(f"\n{reason}\n")
    return 1 if reason else 0


def _convert(request: dict[str, Any], out: Path) -> bool:
    """Write the GGUF; return False if the pre-tokenizer is unknown."""
    conversion = importlib.import_module("conversion")
    gguf = importlib.import_module("gguf")
    hparams = conversion.ModelBase.load_hparams(Path(request["model"]), False)
    found = conversion.get_model_class(conversion.get_model_architecture(hparams, conversion.ModelType.TEXT))

    class Model(found):  # type: ignore[misc, valid-type]
        """The converter of this architecture, with a tokenizer and keys of ours."""

        model_arch = found.model_arch

        def set_vocab(self) -> None:
            """Write what the request says instead of what the converter would make of the tokenizer's files."""
            for method, arguments in request["calls"]:
                getattr(self.gguf_writer, method)(*arguments)
            if request["pre_tokenizer"]:
                transformers = importlib.import_module("transformers")
                tokenizer = transformers.AutoTokenizer.from_pretrained(self.dir_model)
                self.gguf_writer.add_tokenizer_pre(self.get_vocab_base_pre(tokenizer))

    types = {"f32": gguf.LlamaFileType.ALL_F32, "f16": gguf.LlamaFileType.MOSTLY_F16}
    try:
        Model(Path(request["model"]), types[request["outtype"]], out).write()
    except NotImplementedError as error:
        if "pre-tokenizer" in str(error):
            return False
        raise
    return True


def _not_finite(out: Path) -> str:
    """Name the first tensor whose type could not hold a value; "" if there is none."""
    import numpy as np

    gguf = importlib.import_module("gguf")
    for tensor in gguf.GGUFReader(out).tensors:
        if tensor.data.dtype in (np.float16, np.float32) and not np.isfinite(tensor.data).all():
            return f"The tensor {tensor.name} has values that {tensor.data.dtype} cannot hold, or that are no numbers."
    return ""


def _not_loadable(out: Path) -> str:
    """Load the GGUF in llama.cpp, where it is installed, and say what it misses; "" if nothing."""
    if importlib.util.find_spec("llama_cpp") is None:
        return ""
    lib: Any = importlib.import_module("llama_cpp")
    said: list[str] = []

    @lib.llama_log_callback  # type: ignore[untyped-decorator]
    def listen(level: int, text: bytes, user_data: object) -> None:
        said.append(text.decode("utf-8", "replace").strip())

    lib.llama_log_set(listen, ctypes.c_void_p(0))
    params = lib.llama_model_default_params()
    params.n_gpu_layers, params.use_extra_bufts = 0, False
    model = lib.llama_model_load_from_file(str(out).encode(), params)
    if model:
        lib.llama_model_free(model)
        return ""
    telling = [line for line in said if "error" in line.lower()] or said
    return f"llama.cpp cannot load what its converter wrote: {' '.join(telling[:2])}"


if __name__ == "__main__":
    sys.exit(main())
