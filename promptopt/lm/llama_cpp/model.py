"""A GGUF file loaded into llama.cpp: weights, context with several KV sequences, vocabulary. One owner per process.

Decoding must happen on one thread at a time (the engine's worker); the vocabulary may be used from any thread.
"""

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from promptopt.errors import ContextLengthError, LMError, ModelError
from promptopt.lm.gguf_info import GgufInfo, read_gguf
from promptopt.lm.llama_cpp import native
from promptopt.lm.llama_cpp.cpu_cores import physical_cores
from promptopt.lm.llama_cpp.cpu_probe import choose_cpu_path

MAX_SLOTS = 4
KV_BUDGET_BYTES = 2 << 30
KV_VALUE_BYTES = 2
BATCH_TOKENS = 512


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """How a model is loaded.

    Attributes:
        n_ctx: tokens per prompt with its answer; 0 = what the model was trained for, which is also the upper limit.
        n_gpu_layers: layers on the GPU; -1 = all, 0 = none.
        n_threads: CPU threads; None = the physical cores this process may use.
        n_slots: prompts whose keys and values stay resident; None = up to 4, within 2 GiB.
    """

    n_ctx: int = 4096
    n_gpu_layers: int = 0
    n_threads: int | None = None
    n_slots: int | None = None

    def __post_init__(self) -> None:
        if self.n_ctx < 0:
            raise ContextLengthError(f"n_ctx is {self.n_ctx}; allowed are 0 (the model's own) and positive numbers.")
        if self.n_threads is not None and self.n_threads < 1:
            raise ModelError(f"n_threads is {self.n_threads}; allowed are None (physical cores) and positive numbers.")
        if self.n_slots is not None and self.n_slots < 1:
            raise ModelError(f"n_slots is {self.n_slots}; allowed are None (chosen by memory) and positive numbers.")


class NativeModel:
    """Weights, context and vocabulary of one GGUF file.

    Raises:
        ModelError: the file is missing, damaged, or nothing llama.cpp can run as a text generator.
    """

    def __init__(self, path: Path | str, options: LoadOptions) -> None:
        self.info: GgufInfo = read_gguf(path)
        self.path = self.info.path
        self.lib = native.library()
        self.cpu_path = choose_cpu_path(self.info, str(self.lib.__version__))
        self._vocab_lock = threading.Lock()
        self._pieces: dict[int, bytes] = {}
        self._closed = False
        self._model = self._load(options)
        self._vocab = self.lib.llama_model_get_vocab(self._model)
        try:
            self._check_can_generate()
            self.n_ctx = self._choose_n_ctx(options)
            self.n_slots = options.n_slots or self._affordable_slots()
            self.context = self._make_context(options)
        except BaseException:
            self.lib.llama_model_free(self._model)
            raise
        self.memory = self.lib.llama_get_memory(self.context)
        self.batch = native.Batch(BATCH_TOKENS)

    def _load(self, options: LoadOptions) -> Any:
        params = self.lib.llama_model_default_params()
        params.n_gpu_layers = options.n_gpu_layers
        params.use_extra_bufts = self.cpu_path.use_extra_bufts
        native.clear_log()
        model = self.lib.llama_model_load_from_file(str(self.path).encode(), params)
        if not model:
            raise ModelError(
                f"llama.cpp {self.lib.__version__} cannot load {self.path} (architecture {self.info.architecture!r}, "
                f"{self.info.quantization}). It said: {native.last_log_lines()}. Allowed are text models of an "
                "architecture this llama.cpp knows: update llama-cpp-python, or convert the model again."
            )
        return model

    def _check_can_generate(self) -> None:
        lib = self.lib
        if not lib.llama_model_has_decoder(self._model) or lib.llama_model_has_encoder(self._model):
            raise ModelError(
                f"{self.path} ({self.info.architecture}) is not a decoder-only text generator. "
                "Use a causal language model such as a Llama, Qwen, Gemma or Mistral."
            )

    def _choose_n_ctx(self, options: LoadOptions) -> int:
        trained = int(self.lib.llama_model_n_ctx_train(self._model))
        return min(options.n_ctx or trained, trained) if trained > 0 else options.n_ctx or 4096

    def _affordable_slots(self) -> int:
        """Return how many slots fit into the KV budget; small models get all of them."""
        lib, prefix = self.lib, self.info.architecture
        n_layer, n_head_kv = lib.llama_model_n_layer(self._model), lib.llama_model_n_head_kv(self._model)
        head = lib.llama_model_n_embd(self._model) // max(1, lib.llama_model_n_head(self._model))
        key = self.info.metadata.get(f"{prefix}.attention.key_length", head)
        value = self.info.metadata.get(f"{prefix}.attention.value_length", head)
        widths = sum(int(width) for width in (key, value) if isinstance(width, int))
        slot_bytes = max(1, n_layer * n_head_kv * widths * KV_VALUE_BYTES * self.n_ctx)
        return int(max(1, min(MAX_SLOTS, KV_BUDGET_BYTES // slot_bytes)))

    def _make_context(self, options: LoadOptions) -> Any:
        params = self.lib.llama_context_default_params()
        params.n_ctx = self.n_ctx * self.n_slots
        params.n_batch = params.n_ubatch = BATCH_TOKENS
        params.n_seq_max = self.n_slots
        # One KV stream per slot: what a request computes does not depend on what other slots hold.
        params.kv_unified = False
        params.n_threads = params.n_threads_batch = options.n_threads or physical_cores()
        # Sums in the same order as llama-cpp-python's `Llama`, so that both give the same greedy tokens.
        params.flash_attn_type = self.lib.LLAMA_FLASH_ATTN_TYPE_DISABLED
        params.no_perf = True
        native.clear_log()
        context = self.lib.llama_init_from_model(self._model, params)
        if not context:
            raise ModelError(
                f"llama.cpp cannot make a context of {self.n_slots} x {self.n_ctx} tokens for {self.path}: "
                f"{native.last_log_lines()}. Lower n_ctx or n_slots, or free memory."
            )
        return context

    @property
    def can_reuse_prefixes(self) -> bool:
        """Whether a sequence can be cut back to a prefix; recurrent states cannot."""
        return not (self.lib.llama_model_is_recurrent(self._model) or self.lib.llama_model_is_hybrid(self._model))

    def tokenize(self, text: str, *, special: bool) -> list[int]:
        """Return token ids of `text` alone; `special` says whether control tokens in it are read as such."""
        with self._vocab_lock:
            self._check_open()
            return native.tokenize(self.lib, self._vocab, text, special=special)

    def token_bytes(self, token: int) -> bytes:
        """Return the bytes `token` adds to the text (none for control tokens)."""
        piece = self._pieces.get(token)
        if piece is None:
            with self._vocab_lock:
                self._check_open()
                piece = self._pieces[token] = native.token_bytes(self.lib, self._vocab, token)
        return piece

    def ends_generation(self, token: int) -> bool:
        """Whether `token` ends the model's turn."""
        return bool(self.lib.llama_vocab_is_eog(self._vocab, token))

    def special_tokens(self) -> dict[str, str]:
        """Return the template variables `bos_token`, `eos_token`, ... that this vocabulary has, with their text."""
        found = {}
        for name in ("bos", "eos", "pad", "sep", "mask"):
            token = int(getattr(self.lib, f"llama_vocab_{name}")(self._vocab))
            if token >= 0:
                found[f"{name}_token"] = self.lib.llama_vocab_get_text(self._vocab, token).decode("utf-8", "replace")
        return found

    def decode(self) -> None:
        """Run the batch.

        Raises:
            LMError: llama.cpp reports a failure; what the KV cache holds is then unknown.
        """
        code = self.batch.decode(self.context)
        if code:
            raise LMError(
                f"llama_decode failed with code {code} on {self.path.name}: {native.last_log_lines()}. "
                "Out of memory and a context that is too large are the usual causes: lower n_ctx."
            )

    def close(self) -> None:
        """Free everything native; safe to call twice. The caller makes sure that nothing decodes any more."""
        with self._vocab_lock:
            if self._closed:
                return
            self._closed = True
            self.batch.free()
            self.lib.llama_free(self.context)
            self.lib.llama_model_free(self._model)

    def _check_open(self) -> None:
        if self._closed:
            raise LMError(f"The model {self.path.name} was closed; load it again.")
