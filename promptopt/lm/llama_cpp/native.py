"""The thinnest layer over llama-cpp-python's low-level bindings: the library, its log, batches and strings.

Everything above this file works with Python values. Only this package may call the bindings.
"""

import ctypes
import threading
from collections import deque
from typing import Any

import numpy as np
from numpy.typing import NDArray

from promptopt.extras import require

LOG_LINES_KEPT = 60

Tokens = NDArray[np.int32]
"""Token ids, one dimension."""
Logits = NDArray[np.float32]
"""Rows of logits, (tokens, vocabulary)."""

_lock = threading.Lock()
_log_lines: deque[str] = deque(maxlen=LOG_LINES_KEPT)
_loaded: dict[str, Any] = {}


def library() -> Any:
    """Import llama-cpp-python once, start its backend and take over its log.

    Raises:
        MissingExtraError: llama-cpp-python is not installed.
    """
    with _lock:
        if "lib" not in _loaded:
            lib = require("llama_cpp")
            lib.llama_backend_init()
            # ctypes callbacks die with their last reference: this one must live as long as the library.
            _loaded.update(lib=lib, callback=lib.llama_log_callback(_keep_log))
            _take_log()
        return _loaded["lib"]


def _take_log() -> None:
    """Make llama.cpp, which has one log per process, send it here."""
    _loaded["lib"].llama_log_set(_loaded["callback"], ctypes.c_void_p(0))


def _keep_log(level: int, text: bytes, user_data: object) -> None:
    """Keep llama.cpp's chatter in memory instead of printing it; errors quote the last lines."""
    line = text.decode("utf-8", "replace").strip()
    if line and line != ".":
        _log_lines.append(line)


def clear_log() -> None:
    """Forget earlier lines, so that an error quotes only what belongs to it.

    Takes the log over again too: other code in this process may use llama.cpp itself and have taken it away, which
    would leave errors without their reason.
    """
    library()
    _take_log()
    _log_lines.clear()


def last_log_lines(count: int = 4) -> str:
    """Return the last lines llama.cpp logged that speak of an error, or simply the last ones."""
    lines = list(_log_lines)
    telling = [line for line in lines if "error" in line.lower() or "fail" in line.lower() or "unknown" in line.lower()]
    return " | ".join((telling or lines)[-count:]) or "(llama.cpp said nothing)"


class Batch:
    """A reusable `llama_batch` of up to `size` tokens, each of one sequence; filled through numpy, not one by one.

    Attributes:
        tokens, positions, sequences: int32 arrays of `size`; entries from `n_tokens` on are ignored.
        wanted: int8 array; 1 where logits are wanted.
    """

    def __init__(self, size: int) -> None:
        lib = library()
        self._lib = lib
        self.size = size
        self.tokens = np.zeros(size, dtype=np.int32)
        self.positions = np.zeros(size, dtype=np.int32)
        self.sequences = np.zeros(size, dtype=np.int32)
        self.wanted = np.zeros(size, dtype=np.int8)
        self._counts = np.ones(size, dtype=np.int32)
        # llama.cpp wants a pointer to each token's list of sequences; every list has one entry.
        self._lists = self.sequences.ctypes.data + np.arange(size, dtype=np.uintp) * self.sequences.itemsize
        self._raw = lib.llama_batch(
            0,
            _pointer(self.tokens, lib.llama_token),
            None,
            _pointer(self.positions, lib.llama_pos),
            _pointer(self._counts, ctypes.c_int32),
            _pointer(self._lists, ctypes.POINTER(lib.llama_seq_id)),
            _pointer(self.wanted, ctypes.c_int8),
        )

    def set_prompt(self, tokens: Tokens, start: int, sequence: int, *, last_logits: bool) -> None:
        """Make the batch `tokens` of one sequence from position `start`; logits of the last one if asked for."""
        count = len(tokens)
        self.tokens[:count] = tokens
        self.positions[:count] = np.arange(start, start + count, dtype=np.int32)
        self.sequences[:count] = sequence
        self.wanted[:count] = 0
        self.wanted[count - 1] = last_logits
        self._raw.n_tokens = count

    def set_count(self, count: int) -> None:
        """Say how many entries of the arrays count."""
        self._raw.n_tokens = count

    def decode(self, context: Any) -> int:
        """Run the batch; return llama_decode's code (0 done, 1 no room in the KV cache, 2 aborted, < 0 broken)."""
        return int(self._lib.llama_decode(context, self._raw))


def _pointer(array: np.ndarray[Any, Any], kind: Any) -> Any:
    return ctypes.cast(array.ctypes.data, ctypes.POINTER(kind))


def tokenize(lib: Any, vocab: Any, text: str, *, special: bool) -> list[int]:
    """Turn text into token ids; `special` makes the text of control tokens (`<|im_start|>`) those tokens.

    Nothing is added in front or behind.
    """
    raw = text.encode("utf-8")
    room = len(raw) + 8
    for _ in range(2):
        buffer = (lib.llama_token * room)()
        count = int(lib.llama_tokenize(vocab, raw, len(raw), buffer, room, False, special))
        if count >= 0:
            return list(buffer[:count])
        room = -count
    raise AssertionError("llama_tokenize asked for more room twice")


def token_bytes(lib: Any, vocab: Any, token: int) -> bytes:
    """Return the bytes a token adds to the text; none for control tokens."""
    room = 64
    for _ in range(2):
        buffer = ctypes.create_string_buffer(room)
        count = int(lib.llama_token_to_piece(vocab, token, buffer, room, 0, False))
        if count >= 0:
            return buffer.raw[:count]
        room = -count
    raise AssertionError("llama_token_to_piece asked for more room twice")
