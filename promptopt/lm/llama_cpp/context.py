"""A llama.cpp context of several lanes: the KV cache with one stream per sequence, decoding, logits.

One thread only: the engine's worker. Knows nothing of requests.
"""

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np

from promptopt.errors import LMError, ModelError
from promptopt.lm.llama_cpp import native

BATCH_TOKENS = 512
LANE_STEP = 256
"""llama.cpp rounds the cells of a stream up to this."""


class LaneContext:
    """Keys and values of `lanes` sequences of up to `lane_tokens` tokens each.

    Args:
        lib: llama-cpp-python.
        model: the native model; must outlive this.
        name: what errors call the model.
        threads: CPU threads.
        flash_attention: let llama.cpp use it where it can; it sums in another order.

    Raises:
        ModelError: there is no memory for it, or llama.cpp cannot make it.
    """

    def __init__(
        self,
        lib: Any,
        model: Any,
        name: str,
        *,
        lanes: int,
        lane_tokens: int,
        threads: int,
        flash_attention: bool = False,
    ) -> None:
        self._lib = lib
        self._name = name
        self.lanes = lanes
        self.lane_tokens = lane_tokens
        params = lib.llama_context_default_params()
        params.n_ctx = lane_tokens * lanes
        params.n_batch = params.n_ubatch = max(BATCH_TOKENS, lanes)
        params.n_seq_max = lanes
        # One KV stream per lane: what a request computes does not depend on what other lanes hold.
        params.kv_unified = False
        # A sliding window that keeps all its cells can be cut back and copied like any other cache.
        params.swa_full = True
        params.n_threads = params.n_threads_batch = threads
        # Without it sums come in the same order as in llama-cpp-python's `Llama`: both give the same greedy tokens.
        kinds = (lib.LLAMA_FLASH_ATTN_TYPE_DISABLED, lib.LLAMA_FLASH_ATTN_TYPE_AUTO)
        params.flash_attn_type = kinds[flash_attention]
        params.no_perf = True
        native.clear_log()
        self.raw = lib.llama_init_from_model(model, params)
        if not self.raw:
            raise ModelError(
                f"llama.cpp cannot make a context of {lanes} x {lane_tokens} tokens for {name}: "
                f"{native.last_log_lines()}. Lower n_ctx or parallel, or free memory."
            )
        self._memory = lib.llama_get_memory(self.raw)
        self._vocab_size = int(lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(model)))
        self.batch = native.Batch(int(params.n_batch))

    def decode(self) -> None:
        """Run the batch.

        Raises:
            LMError: llama.cpp reports a failure; what the KV cache holds is then unknown.
        """
        code = self.batch.decode(self.raw)
        if code:
            raise LMError(
                f"llama_decode failed with code {code} on {self._name}: {native.last_log_lines()}. "
                "Out of memory and a context that is too large are the usual causes: lower n_ctx or parallel."
            )

    def logits(self, rows: int) -> native.Logits:
        """Return the logits of the last decode, one row per token that wanted them; valid until the next one."""
        pointer = ctypes.cast(self._lib.llama_get_logits(self.raw), ctypes.POINTER(ctypes.c_float))
        return np.ctypeslib.as_array(pointer, shape=(rows, self._vocab_size))

    def fork(self, source: int, lane: int, keep: int | None) -> None:
        """Make `lane` hold the first `keep` tokens of `source`; None = all."""
        # Between streams only whole sequences can be copied; the tail is cut off afterwards.
        self._lib.llama_memory_seq_rm(self._memory, lane, -1, -1)
        self._lib.llama_memory_seq_cp(self._memory, source, lane, -1, -1)
        if keep is not None:
            self.cut(lane, keep)

    def cut(self, lane: int, keep: int) -> bool:
        """Forget everything of `lane` after `keep` tokens; False if this cache cannot, and then it is left empty."""
        if keep and self._lib.llama_memory_seq_rm(self._memory, lane, keep, -1):
            return True
        self._lib.llama_memory_seq_rm(self._memory, lane, -1, -1)
        return keep == 0

    def set_lora(self, weights: Sequence[tuple[Any, float]]) -> None:
        """Decode with these LoRA weights (native handle, scale) from now on, and no others.

        Raises:
            LMError: llama.cpp refuses them.
        """
        handles = (self._lib.llama_adapter_lora_p_ctypes * len(weights))(*(handle for handle, _ in weights))
        scales = (ctypes.c_float * len(weights))(*(scale for _, scale in weights))
        if self._lib.llama_set_adapters_lora(self.raw, handles, len(weights), scales):
            raise LMError(f"llama.cpp cannot apply the LoRA weights to {self._name}: {native.last_log_lines()}.")

    def set_threads(self, threads: int) -> None:
        """Use this many CPU threads from now on; changes no bit of any answer."""
        self._lib.llama_set_n_threads(self.raw, threads, threads)

    def close(self) -> None:
        """Give the memory back."""
        if self.raw is not None:
            self._lib.llama_free(self.raw)
            self.raw = None


def lane_size(tokens: int, limit: int) -> int:
    """Return the tokens a lane should hold for a request of `tokens`: room to grow, at most `limit`.

    Doubling keeps the number of times a growing context is made anew at the logarithm of its size.
    """
    size = 2 * LANE_STEP
    while size < tokens:
        size *= 2
    return min(size, -(-limit // LANE_STEP) * LANE_STEP)
