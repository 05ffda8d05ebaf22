"""A GGUF file loaded into llama.cpp: its weights, its vocabulary, and what a context on it may hold."""

import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from promptopt.errors import ConfigError, ContextLengthError, ModelError
from promptopt.lm.gguf_info import GgufInfo, read_gguf
from promptopt.lm.llama_cpp import native
from promptopt.lm.llama_cpp.context import LANE_STEP, LaneContext, lane_size
from promptopt.lm.llama_cpp.cpu_cores import physical_cores
from promptopt.lm.llama_cpp.cpu_probe import CpuPath, choose_cpu_path
from promptopt.lm.llama_cpp.vocabulary import Vocabulary

PARALLEL_CPU = 16
PARALLEL_GPU = 64
MAX_LANES = 256
"""llama.cpp's limit (LLAMA_MAX_SEQ)."""
LEAST_LANES = 4
"""Lanes that stay resident even if requests run one by one, so that prefixes which alternate are not computed again."""
KV_VALUE_BYTES = 2
FALLBACK_MEMORY_BYTES = 4 << 30


class CapacityWarning(UserWarning):
    """Fewer requests run at once than were asked for, because their keys and values do not fit into memory."""


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """How a model is loaded.

    Attributes:
        n_ctx: tokens per prompt with its answer; 0 = what the model was trained for, which is also the upper limit.
        n_gpu_layers: layers on the GPU; -1 = all, 0 = none.
        n_threads: CPU threads; None = the physical cores this process may use, fewer while other work holds them.
        parallel: requests that run at once; None = 16 on a CPU, 64 on a GPU, less where memory is short.
        max_waiting: requests that may wait for a place.
        flash_attention: faster on long prompts, with sums in another order; None = on a GPU only, and never together
            with `batch_invariant`.
        batch_invariant: answers do not depend on what else runs at the same time, to the last bit (see `BatchRule`);
            costs time while few requests run.
    """

    n_ctx: int = 4096
    n_gpu_layers: int = 0
    n_threads: int | None = None
    parallel: int | None = None
    max_waiting: int = 4096
    batch_invariant: bool = False
    flash_attention: bool | None = None

    def __post_init__(self) -> None:
        if self.n_ctx < 0:
            raise ContextLengthError(f"n_ctx is {self.n_ctx}; allowed are 0 (the model's own) and positive numbers.")
        if self.n_threads is not None and self.n_threads < 1:
            raise ModelError(f"n_threads is {self.n_threads}; allowed are None (physical cores) and positive numbers.")
        if self.parallel is not None and not 1 <= self.parallel <= MAX_LANES:
            raise ModelError(f"parallel is {self.parallel}; allowed are None (chosen by memory) and 1 to {MAX_LANES}.")
        if self.batch_invariant and self.flash_attention:
            raise ConfigError(
                "batch_invariant and flash_attention are both True; flash attention splits its sums by the longest "
                "prompt that runs, so answers would depend on company. Choose one."
            )
        if self.max_waiting < 1:
            raise ModelError(f"max_waiting is {self.max_waiting}; allowed are positive numbers.")


class NativeModel:
    """Weights and vocabulary of one GGUF file.

    Args:
        generates: False lets models in that only embed.
        vocab_only: no weights: enough for tokens and the chat template, and `n_ctx`, `parallel` and `lanes` are 0.

    Attributes:
        n_ctx: tokens that one prompt with its answer may take.
        parallel: requests that run at once.
        lanes: sequences a context of this model has: those that run, and some that only stay resident.

    Raises:
        ModelError: the file is missing, damaged, or nothing llama.cpp can run as a text generator.
    """

    def __init__(
        self, path: Path | str, options: LoadOptions, *, generates: bool = True, vocab_only: bool = False
    ) -> None:
        self.info: GgufInfo = read_gguf(path)
        self.path = self.info.path
        self.options = options
        self.lib = native.library()
        version = str(self.lib.__version__)
        self.cpu_path = CpuPath(False, "no weights") if vocab_only else choose_cpu_path(self.info, version)
        self._closed = False
        self.raw = self._load(options, vocab_only)
        try:
            if generates:
                self._check_can_generate()
            self.vocabulary = Vocabulary(self.lib, self.raw, self.path.name)
            self.n_ctx = 0 if vocab_only else self._choose_n_ctx(options)
            self.threads = options.n_threads or physical_cores()
            self.parallel, self.lanes = (0, 0) if vocab_only else self._choose_lanes(options)
        except BaseException:
            self.lib.llama_model_free(self.raw)
            raise

    def _load(self, options: LoadOptions, vocab_only: bool) -> Any:
        params = self.lib.llama_model_default_params()
        params.n_gpu_layers = options.n_gpu_layers
        params.vocab_only = vocab_only
        if vocab_only:
            # llama.cpp asks every GPU for its memory, which takes some of it; this means "no GPU".
            params.n_gpu_layers, params.split_mode, params.main_gpu = 0, self.lib.LLAMA_SPLIT_MODE_NONE, -1
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
        if not lib.llama_model_has_decoder(self.raw) or lib.llama_model_has_encoder(self.raw):
            raise ModelError(
                f"{self.path} ({self.info.architecture}) is not a decoder-only text generator. "
                "Use a causal language model such as a Llama, Qwen, Gemma or Mistral."
            )

    def _choose_n_ctx(self, options: LoadOptions) -> int:
        trained = int(self.lib.llama_model_n_ctx_train(self.raw))
        return min(options.n_ctx or trained, trained) if trained > 0 else options.n_ctx or 4096

    def _choose_lanes(self, options: LoadOptions) -> tuple[int, int]:
        """Return how many requests run at once and how many lanes there are, within half of the free memory."""
        on_gpu = options.n_gpu_layers != 0
        wanted = options.parallel or (PARALLEL_GPU if on_gpu else PARALLEL_CPU)
        lane_bytes = self.kv_bytes_per_token * (-(-self.n_ctx // LANE_STEP) * LANE_STEP)
        # The memory of a GPU is not known here; a context that does not fit is refused and made smaller later.
        affordable = MAX_LANES if on_gpu else max(1, _free_memory() // 2 // max(1, lane_bytes))
        if options.parallel is not None and affordable < wanted:
            warnings.warn(
                f"{self.path.name}: {affordable} requests run at once, not {wanted}: {self.n_ctx} tokens of context "
                f"take {lane_bytes >> 20} MiB each, and they may take half of the free memory. Lower n_ctx for more.",
                CapacityWarning,
                stacklevel=2,
            )
        parallel = min(wanted, affordable)
        lanes = max(parallel, min(LEAST_LANES, affordable))
        if options.batch_invariant:
            # Room for the rows that grow a batch to a size whose bits agree.
            lanes = min(MAX_LANES, -(-max(lanes, 16) // 4) * 4)
        return parallel, lanes

    @property
    def flash_attention(self) -> bool:
        """Whether contexts may use flash attention."""
        if self.options.flash_attention is None:
            return self.options.n_gpu_layers != 0 and not self.options.batch_invariant
        return self.options.flash_attention

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes that one token's keys and values take."""
        lib, prefix = self.lib, self.info.architecture
        n_layer, n_head_kv = lib.llama_model_n_layer(self.raw), lib.llama_model_n_head_kv(self.raw)
        head = lib.llama_model_n_embd(self.raw) // max(1, lib.llama_model_n_head(self.raw))
        key = self.info.metadata.get(f"{prefix}.attention.key_length", head)
        value = self.info.metadata.get(f"{prefix}.attention.value_length", head)
        widths = sum(int(width) for width in (key, value) if isinstance(width, int))
        return max(1, int(n_layer * n_head_kv * widths * KV_VALUE_BYTES))

    def make_context(self, tokens: int, lanes: int | None = None) -> LaneContext:
        """Return a context whose lanes hold at least `tokens` tokens each (and at most `n_ctx`).

        Raises:
            ModelError: there is no memory for it.
        """
        return LaneContext(
            self.lib,
            self.raw,
            self.path.name,
            lanes=lanes or self.lanes,
            lane_tokens=lane_size(tokens, self.n_ctx),
            threads=self.threads,
            flash_attention=self.flash_attention,
        )

    @property
    def can_reuse_prefixes(self) -> bool:
        """Whether a sequence can be cut back to a prefix; recurrent states cannot."""
        return not (self.lib.llama_model_is_recurrent(self.raw) or self.lib.llama_model_is_hybrid(self.raw))

    def close(self) -> None:
        """Free everything native; safe to call twice. The caller makes sure that nothing decodes any more."""
        if self._closed:
            return
        self._closed = True
        self.vocabulary.close()
        self.lib.llama_model_free(self.raw)


def _free_memory() -> int:
    """Return the bytes of memory that are free or can be freed."""
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    except (OSError, ValueError):
        return FALLBACK_MEMORY_BYTES
