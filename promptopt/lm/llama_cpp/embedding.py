"""Texts as vectors, by a GGUF model: of an embedding model, or the mean of a text generator's hidden states.

One text per pass. Used on one thread at a time.
"""

import ctypes
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from promptopt.errors import ConfigError, ContextLengthError, LMError, ModelError
from promptopt.lm.llama_cpp import native
from promptopt.lm.llama_cpp.model import LoadOptions, NativeModel

MAX_TEXT_TOKENS = 2048

Vectors = NDArray[np.float32]
"""Embeddings, (texts, width)."""


class EmbeddingContext:
    """A context on loaded weights that gives one vector per text.

    The model's own pooling is used (mean, first or last token); a model without one gets the mean.

    Raises:
        ModelError: llama.cpp cannot make it.
    """

    def __init__(self, model: NativeModel) -> None:
        self._model = model
        self._lib = lib = model.lib
        self.max_tokens = min(model.n_ctx, MAX_TEXT_TOKENS)
        params = lib.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = self.max_tokens
        params.n_seq_max = 1
        params.embeddings = True
        if f"{model.info.architecture}.pooling_type" not in model.info.metadata:
            params.pooling_type = lib.LLAMA_POOLING_TYPE_MEAN
        params.n_threads = params.n_threads_batch = model.threads
        params.no_perf = True
        native.clear_log()
        self._raw = lib.llama_init_from_model(model.raw, params)
        if not self._raw:
            raise ModelError(f"llama.cpp cannot embed with {model.path.name}: {native.last_log_lines()}.")
        self._memory = lib.llama_get_memory(self._raw)
        self._batch = native.Batch(self.max_tokens)
        self._width = int(lib.llama_model_n_embd(model.raw))

    def embed(self, texts: Sequence[Sequence[int]], *, normalize: bool) -> Vectors:
        """Return one vector per text of token ids; `normalize` makes their length 1.

        Raises:
            ContextLengthError: a text is longer than `max_tokens`.
            ConfigError: a text has no tokens.
            LMError: the model broke.
        """
        vectors = np.empty((len(texts), self._width), dtype=np.float32)
        for number, tokens in enumerate(texts):
            self._check(number, tokens)
            if self._memory:
                self._lib.llama_memory_clear(self._memory, False)
            self._batch.set_prompt(np.asarray(tokens, dtype=np.int32), 0, 0, last_logits=True)
            self._batch.wanted[: len(tokens)] = 1
            if self._batch.decode(self._raw):
                raise LMError(f"{self._model.path.name} broke while embedding: {native.last_log_lines()}.")
            pointer = self._lib.llama_get_embeddings_seq(self._raw, 0)
            if not pointer:
                raise LMError(f"{self._model.path.name} gave no embedding: {native.last_log_lines()}.")
            floats = ctypes.cast(pointer, ctypes.POINTER(ctypes.c_float))
            vectors[number] = np.ctypeslib.as_array(floats, shape=(self._width,))
        if normalize and len(vectors):
            vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        return vectors

    def _check(self, number: int, tokens: Sequence[int]) -> None:
        if not tokens:
            raise ConfigError(f"Text {number + 1} has no tokens; nothing can be embedded.")
        if len(tokens) > self.max_tokens:
            raise ContextLengthError(
                f"Text {number + 1} has {len(tokens)} tokens and {self._model.path.name} embeds up to "
                f"{self.max_tokens}. Cut it into smaller chunks."
            )

    def close(self) -> None:
        """Give the memory back; must happen before the model is closed."""
        if self._raw is not None:
            self._lib.llama_free(self._raw)
            self._raw = None


class GgufEmbedder:
    """An embedding model in a GGUF file, encoder or decoder; callable, as `dspy.Embedder` takes it. Thread-safe.

    Args:
        path: a .gguf file.
        n_gpu_layers, n_threads: see `LoadOptions`.
        normalize: vectors of length 1, whose dot product is the cosine.

    Raises:
        ModelError: the file cannot be used.
    """

    def __init__(
        self, path: Path | str, *, n_gpu_layers: int = 0, n_threads: int | None = None, normalize: bool = True
    ) -> None:
        options = LoadOptions(n_ctx=MAX_TEXT_TOKENS, n_gpu_layers=n_gpu_layers, n_threads=n_threads)
        self._model = NativeModel(path, options, generates=False)
        self._normalize = normalize
        self._lock = threading.Lock()
        try:
            self._context = EmbeddingContext(self._model)
        except BaseException:
            self._model.close()
            raise

    def __call__(self, texts: Sequence[str]) -> Vectors:
        """Return the vectors of `texts`, (texts, width)."""
        tokens = [embedding_tokens(self._model, text) for text in texts]
        with self._lock:
            return self._context.embed(tokens, normalize=self._normalize)

    def close(self) -> None:
        """Free the model."""
        with self._lock:
            self._context.close()
            self._model.close()


def embedding_tokens(model: NativeModel, text: str) -> list[int]:
    """Return the tokens an embedding model reads: with the special tokens its vocabulary asks for."""
    lib, vocab = model.lib, model.vocabulary.raw
    tokens = model.vocabulary.tokenize(text, special=False)
    if lib.llama_vocab_get_add_bos(vocab) and (first := int(lib.llama_vocab_bos(vocab))) >= 0:
        tokens = [first, *tokens]
    if (lib.llama_vocab_get_add_sep(vocab) and (last := int(lib.llama_vocab_sep(vocab))) >= 0) or (
        lib.llama_vocab_get_add_eos(vocab) and (last := int(lib.llama_vocab_eos(vocab))) >= 0
    ):
        tokens = [*tokens, last]
    return tokens
