"""A minimal llama.cpp runner for these tests: token ids, logits, greedy continuation; one sequence, no caching."""

import ctypes
from pathlib import Path
from types import TracebackType
from typing import Any

import llama_cpp
import numpy as np
import numpy.typing as npt

_lib: Any = llama_cpp


@_lib.llama_log_callback
def _ignore(level: int, text: bytes, user_data: object) -> None:
    pass


class Runner:
    """A GGUF in llama.cpp; use as a context manager.

    Args:
        vocab_only: load the tokenizer only.
    """

    def __init__(self, path: Path | str, *, vocab_only: bool = False) -> None:
        _lib.llama_log_set(_ignore, ctypes.c_void_p(0))
        _lib.llama_backend_init()
        params = _lib.llama_model_default_params()
        params.vocab_only = vocab_only
        params.n_gpu_layers = 0
        params.use_extra_bufts = False  # crashes on AMX machines for quantized weights
        self.model = _lib.llama_model_load_from_file(str(path).encode(), params)
        assert self.model, f"llama.cpp cannot load {path}"
        self.vocab = _lib.llama_model_get_vocab(self.model)
        self.context: Any = None
        if not vocab_only:
            context = _lib.llama_context_default_params()
            longest = min(1024, _lib.llama_model_n_ctx_train(self.model))
            context.n_ctx = context.n_batch = context.n_ubatch = longest
            context.n_threads = context.n_threads_batch = 1  # tiny models; threads would only wait for each other
            context.type_k = context.type_v = _lib.GGML_TYPE_F32
            context.flash_attn_type = _lib.LLAMA_FLASH_ATTN_TYPE_DISABLED
            self.context = _lib.llama_init_from_model(self.model, context)
            assert self.context

    def __enter__(self) -> "Runner":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.context:
            _lib.llama_free(self.context)
        _lib.llama_model_free(self.model)

    def tokenize(self, text: str, *, add_special: bool = False) -> list[int]:
        """Token ids; the text of control tokens is read as those tokens."""
        raw = text.encode()
        buffer = (_lib.llama_token * (len(raw) + 16))()
        count = _lib.llama_tokenize(self.vocab, raw, len(raw), buffer, len(buffer), add_special, True)
        assert count >= 0
        return list(buffer[:count])

    def logits(self, ids: list[int], *, last: int = 0) -> npt.NDArray[np.float32]:
        """Logits of shape (len(ids), vocabulary) after each token, or after the `last` tokens."""
        _lib.llama_memory_clear(_lib.llama_get_memory(self.context), True)
        wanted = last or len(ids)
        batch = _lib.llama_batch_init(len(ids), 0, 1)
        for index, token in enumerate(ids):
            batch.token[index], batch.pos[index], batch.logits[index] = token, index, index >= len(ids) - wanted
            batch.n_seq_id[index], batch.seq_id[index][0] = 1, 0
        batch.n_tokens = len(ids)
        assert _lib.llama_decode(self.context, batch) == 0
        size = _lib.llama_vocab_n_tokens(self.vocab)
        pointers = [_lib.llama_get_logits_ith(self.context, index - wanted) for index in range(wanted)]
        rows = [np.ctypeslib.as_array(pointer, (size,)).copy() for pointer in pointers]
        _lib.llama_batch_free(batch)
        return np.stack(rows)

    def greedy(self, ids: list[int], max_new_tokens: int) -> list[int]:
        """The most probable continuation, without the token that ends it."""
        made: list[int] = []
        while len(made) < max_new_tokens:
            token = int(self.logits(ids + made, last=1)[0].argmax())
            if _lib.llama_vocab_is_eog(self.vocab, token):
                break
            made.append(token)
        return made
