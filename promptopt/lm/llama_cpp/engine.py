"""Runs generation requests on one loaded model: what other rooms see of the worker thread behind it."""

import os
import time
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from promptopt.errors import LMError
from promptopt.lm.llama_cpp.batching.worker import Worker
from promptopt.lm.llama_cpp.embedding import EmbeddingContext
from promptopt.lm.llama_cpp.lora import LoraSet
from promptopt.lm.llama_cpp.model import NativeModel
from promptopt.lm.llama_cpp.requests import EngineStats, Generated, GenerationRequest, Job


class Engine:
    """Thread-safe generation on one `NativeModel`, which it owns and closes.

    Args:
        prefix_reuse: start each prompt after the longest beginning that is resident.

    Raises:
        ModelError: there is no memory for a context.
    """

    def __init__(self, model: NativeModel, *, prefix_reuse: bool = True) -> None:
        self.model = model
        self._worker = Worker(model, prefix_reuse=prefix_reuse)
        self._embedding: EmbeddingContext | None = None
        self._pid = os.getpid()
        # Runs when the last reference goes and at interpreter exit, before native libraries are torn down.
        self._finalizer = weakref.finalize(self, self._worker.shut_down)

    def submit(
        self, request: GenerationRequest, *, on_text: Callable[[str], None] | None = None, wait: bool = True
    ) -> "Future[Generated]":
        """Queue a request. Cancelling the future gives it up at once, whether it waits or runs.

        Args:
            on_text: receives the text piece by piece, on the worker's thread; must return quickly.
            wait: where too many requests wait already: wait for room, or raise BusyError.

        Raises:
            BusyError: see `wait`.
            LMError: the engine was closed, or made in the process this one was forked from. The future raises it too
                if the model breaks.
        """
        check_process(self._pid)
        job = Job(request, time.perf_counter(), on_text)
        self._worker.submit(job, wait=wait)
        return job.future

    def call(self, action: Callable[[], Any]) -> Any:
        """Run `action` on the thread that owns the context, between two batches, and return its result."""
        check_process(self._pid)
        return self._worker.call(action)

    def on_close(self, action: Callable[[], None]) -> None:
        """Run `action` before the model is freed; call this on the worker's thread."""
        self._worker.closing.append(action)

    def embed(self, texts: Sequence[Sequence[int]], *, normalize: bool) -> list[list[float]]:
        """Return a vector per text of token ids; see `EmbeddingContext.embed`.

        Raises:
            ModelError: the model cannot embed.
        """

        def run() -> Any:
            if self._embedding is None:
                self._embedding = EmbeddingContext(self.model)
                self.on_close(self._embedding.close)
            return self._embedding.embed(texts, normalize=normalize)

        vectors: list[list[float]] = self.call(run).tolist()
        return vectors

    def free_lora(self, lora: LoraSet) -> None:
        """Unload LoRA weights once no request uses them, and forget what was computed with them."""
        check_process(self._pid)
        self._worker.free_lora(lora)

    @property
    def n_ctx(self) -> int:
        """Tokens that one prompt with its answer may take."""
        return self.model.n_ctx

    @property
    def parallel(self) -> int:
        """Requests that run at once; more wait."""
        return self.model.parallel

    @property
    def batch_rule(self) -> str:
        """Name of the rule by which answers do not depend on what else runs; "free" where they may."""
        return self._worker.batcher.rule_name

    def stats(self) -> EngineStats:
        """Return counters since the model was loaded."""
        return self._worker.stats()

    def close(self) -> None:
        """Stop the worker and free the model; requests that wait or run end with LMError."""
        self._finalizer()


def check_process(pid: int) -> None:
    """Refuse an engine that was made in process `pid` if this is another one; raises LMError."""
    if os.getpid() != pid:
        raise LMError(
            "This model was loaded in another process, and its worker thread does not survive a fork. "
            "Load the model inside the worker process, or start processes with the 'spawn' method."
        )
