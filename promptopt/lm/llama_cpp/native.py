"""The thinnest layer over llama-cpp-python's low-level bindings: the library, its log, batches and strings.

Everything above this file works with Python values. Only this package may call the bindings.
"""

import ctypes
import threading
from collections import deque
from typing import Any

from promptopt.extras import require

LOG_LINES_KEPT = 60

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
    """A reusable `llama_batch` for up to `size` tokens, each of one sequence."""

    def __init__(self, size: int) -> None:
        self._lib = library()
        self._raw = self._lib.llama_batch_init(size, 0, 1)
        self.size = size

    def clear(self) -> None:
        """Empty the batch."""
        self._raw.n_tokens = 0

    def add(self, token: int, position: int, sequence: int, *, logits: bool) -> int:
        """Append one token; return its index, with which its logits are asked for."""
        index = int(self._raw.n_tokens)
        self._raw.token[index] = token
        self._raw.pos[index] = position
        self._raw.n_seq_id[index] = 1
        self._raw.seq_id[index][0] = sequence
        self._raw.logits[index] = logits
        self._raw.n_tokens = index + 1
        return index

    def decode(self, context: Any) -> int:
        """Run the batch; return llama_decode's code (0 done, 1 no room in the KV cache, 2 aborted, < 0 broken)."""
        return int(self._lib.llama_decode(context, self._raw))

    def free(self) -> None:
        """Give the native memory back; the batch must not be used afterwards."""
        self._lib.llama_batch_free(self._raw)


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
