"""The child process of `quantize`: one call of llama.cpp's quantizer. Run as a file; imports nothing of promptopt.

Arguments: source, destination, name of llama.cpp's file type constant, threads (0 = llama.cpp's choice).
"""

import ctypes
import sys
from typing import Any


def main(source: str, out: str, file_type: str, n_threads: int) -> int:
    """Quantize, with llama.cpp's log on stderr; return its exit code (0 = done)."""
    import llama_cpp

    lib: Any = llama_cpp
    log = lib.llama_log_callback(_write_log)
    lib.llama_log_set(log, ctypes.c_void_p(0))
    params = lib.llama_model_quantize_default_params()
    params.ftype = getattr(lib, file_type)
    params.nthread = n_threads
    return int(lib.llama_model_quantize(source.encode(), out.encode(), ctypes.byref(params)))


def _write_log(level: int, text: bytes, user_data: object) -> None:
    sys.stderr.write(text.decode("utf-8", "replace"))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])))
