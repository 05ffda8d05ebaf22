"""The vocabulary of a loaded model: text <-> tokens. Any thread may use it, until the model is closed."""

import threading
from typing import Any

from promptopt.errors import LMError
from promptopt.lm.llama_cpp import native


class Vocabulary:
    """Tokenizer and special tokens of one model.

    Args:
        lib: llama-cpp-python.
        model: the native model; must outlive this until `close`.
        name: what errors call the model.
    """

    def __init__(self, lib: Any, model: Any, name: str) -> None:
        self._lib = lib
        self._name = name
        self.raw = lib.llama_model_get_vocab(model)
        self.size = int(lib.llama_vocab_n_tokens(self.raw))
        self._lock = threading.Lock()
        self._pieces: dict[int, bytes] = {}
        self._ends = frozenset(t for t in range(self.size) if lib.llama_vocab_is_eog(self.raw, t))
        self._closed = False

    def tokenize(self, text: str, *, special: bool) -> list[int]:
        """Return token ids of `text` alone; `special` says whether control tokens in it are read as such."""
        with self._lock:
            self._check_open()
            return native.tokenize(self._lib, self.raw, text, special=special)

    def token_bytes(self, token: int) -> bytes:
        """Return the bytes `token` adds to the text (none for control tokens)."""
        piece = self._pieces.get(token)
        if piece is None:
            with self._lock:
                self._check_open()
                piece = self._pieces[token] = native.token_bytes(self._lib, self.raw, token)
        return piece

    def token_text(self, token: int) -> str:
        """Return a token as the vocabulary writes it, control tokens included."""
        piece = self.token_bytes(token)
        if piece:
            return piece.decode("utf-8", "replace")
        with self._lock:
            self._check_open()
            return str(self._lib.llama_vocab_get_text(self.raw, token).decode("utf-8", "replace"))

    def ends_generation(self, token: int) -> bool:
        """Whether `token` ends the model's turn."""
        return token in self._ends

    def control_tokens(self) -> list[int]:
        """Return the control tokens that do not end the model's turn."""
        is_control = self._lib.llama_vocab_is_control
        return [t for t in range(self.size) if t not in self._ends and is_control(self.raw, t)]

    def special_tokens(self) -> dict[str, str]:
        """Return the template variables `bos_token`, `eos_token`, ... that this vocabulary has, with their text."""
        found = {}
        for name in ("bos", "eos", "pad", "sep", "mask"):
            token = int(getattr(self._lib, f"llama_vocab_{name}")(self.raw))
            if token >= 0:
                found[f"{name}_token"] = self._lib.llama_vocab_get_text(self.raw, token).decode("utf-8", "replace")
        return found

    def close(self) -> None:
        """Refuse later use; the native part belongs to the model."""
        with self._lock:
            self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise LMError(f"The model {self._name} was closed; load it again.")
