"""Runs generation requests on one loaded model: a worker thread, the slots, the loop from token to token.

All callers submit to one queue and wait on a future; a single worker thread owns the native context. Today it runs one
request at a time, first come first served; continuous batching would change `_serve` and nothing above it.
"""

import os
import queue
import threading
import time
import weakref
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from promptopt.errors import LMError, PromptoptError
from promptopt.lm.llama_cpp.model import NativeModel
from promptopt.lm.llama_cpp.sampling import Sampler, Sampling
from promptopt.lm.llama_cpp.slots import ReusePlan, SlotTable, batches
from promptopt.lm.llama_cpp.text_stream import TextStream
from promptopt.lm.protocol import FinishReason


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One prompt to continue; the caller has checked that `len(prompt) + max_tokens` fits into the context."""

    prompt: Sequence[int]
    max_tokens: int
    sampling: Sampling
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Generated:
    """What came out.

    Attributes:
        tokens: generated token ids without the one that ended the turn; they may reach beyond a stop string.
        text: their text, cut before a stop string.
        prompt_tokens_computed: prompt tokens that no resident slot covered.
        latency_s: seconds from submission to the end, waiting in the queue included.
    """

    tokens: tuple[int, ...]
    text: str
    finish_reason: FinishReason
    prompt_tokens_computed: int
    latency_s: float


@dataclass(frozen=True, slots=True)
class _Job:
    request: GenerationRequest
    future: "Future[Generated]"
    submitted_at: float


class Engine:
    """Thread-safe generation on one `NativeModel`, which it owns and closes.

    Args:
        prefix_reuse: start each prompt from the resident slot that shares the longest beginning with it.
    """

    def __init__(self, model: NativeModel, *, prefix_reuse: bool = True) -> None:
        self.model = model
        self._worker = _Worker(model, prefix_reuse=prefix_reuse and model.can_reuse_prefixes)
        self._pid = os.getpid()
        # Runs when the last reference goes and at interpreter exit, before native libraries are torn down.
        self._finalizer = weakref.finalize(self, self._worker.shut_down)

    def submit(self, request: GenerationRequest) -> "Future[Generated]":
        """Queue a request; the future raises LMError if the model breaks.

        Raises:
            LMError: the engine was closed, or made in the process this one was forked from.
        """
        if os.getpid() != self._pid:
            raise LMError(
                "This model was loaded in another process, and its worker thread does not survive a fork. "
                "Load the model inside the worker process, or start processes with the 'spawn' method."
            )
        return self._worker.submit(request)

    def close(self) -> None:
        """Stop the worker and free the model; a request that is running ends with LMError."""
        self._finalizer()


class _Worker:
    """The thread and everything only it touches. Holds no reference to `Engine`, so that an engine can be collected."""

    def __init__(self, model: NativeModel, *, prefix_reuse: bool) -> None:
        self._model = model
        self._table = SlotTable(model.n_slots)
        self._prefix_reuse = prefix_reuse
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closing = False

    def submit(self, request: GenerationRequest) -> "Future[Generated]":
        future: Future[Generated] = Future()
        with self._lock:
            if self._closing:
                raise LMError(f"The model {self._model.path.name} was closed; load it again.")
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name="promptopt-llama-cpp", daemon=True)
                self._thread.start()
            self._jobs.put(_Job(request, future, time.perf_counter()))
        return future

    def shut_down(self) -> None:
        with self._lock:
            if self._closing:
                return
            self._closing = True
            self._jobs.put(None)
        if self._thread is None:
            self._model.close()
        elif self._thread is not threading.current_thread():
            self._thread.join()

    def _serve(self) -> None:
        try:
            self._serve_until_closed()
        finally:
            # Freed on the thread that used it, so never in the middle of a decode.
            self._model.close()

    def _serve_until_closed(self) -> None:
        """Take jobs until the closing mark; jobs still queued before it fail quickly, so no caller waits for ever."""
        while (job := self._jobs.get()) is not None:
            if not job.future.set_running_or_notify_cancel():
                continue
            try:
                result = self._run(job)
            except PromptoptError as error:
                job.future.set_exception(error)
            except BaseException as error:
                failure = LMError(f"{self._model.path.name} broke while answering: {type(error).__name__}: {error}.")
                failure.__cause__ = error
                job.future.set_exception(failure)
            else:
                job.future.set_result(result)
            # Otherwise this frame would keep the last answer alive while the queue is empty.
            del job

    def _run(self, job: _Job) -> Generated:
        request = job.request
        prompt = list(request.prompt)
        plan = self._plan(prompt)
        sampler = Sampler(self._model.lib, request.sampling)
        try:
            keep = self._prepare_slot(plan)
            logits_at = self._compute_prompt(prompt, keep, plan.slot)
            tokens, text, reason = self._continue(request, plan.slot, sampler, logits_at)
        except BaseException:
            # After a failure nobody knows what the sequence holds.
            self._model.lib.llama_memory_seq_rm(self._model.memory, plan.slot, -1, -1)
            self._table.forget(plan.slot)
            raise
        finally:
            sampler.free()
        self._table.hold(plan.slot, prompt)
        return Generated(tuple(tokens), text, reason, len(prompt) - keep, time.perf_counter() - job.submitted_at)

    def _plan(self, prompt: list[int]) -> ReusePlan:
        plan = self._table.plan(prompt)
        return plan if self._prefix_reuse else ReusePlan(plan.slot, None, 0)

    def _prepare_slot(self, plan: ReusePlan) -> int:
        """Make the slot hold exactly the planned prefix; return how many tokens it holds."""
        lib, memory = self._model.lib, self._model.memory
        if plan.copy_from is not None:
            # Between KV streams only whole sequences can be copied; the tail is cut off below.
            lib.llama_memory_seq_rm(memory, plan.slot, -1, -1)
            lib.llama_memory_seq_cp(memory, plan.copy_from, plan.slot, -1, -1)
        if plan.keep and lib.llama_memory_seq_rm(memory, plan.slot, plan.keep, -1):
            return plan.keep
        # Sliding-window caches may refuse to be cut back: then the prompt is computed from its start.
        lib.llama_memory_seq_rm(memory, plan.slot, -1, -1)
        return 0

    def _compute_prompt(self, prompt: list[int], start: int, slot: int) -> int:
        """Compute `prompt[start:]`; return the batch index of the last token's logits."""
        batch, last, index = self._model.batch, len(prompt) - 1, 0
        for begin, end in batches(start, len(prompt), batch.size):
            self._check_not_closing()
            batch.clear()
            for position in range(begin, end):
                index = batch.add(prompt[position], position, slot, logits=position == last)
            self._model.decode()
        return index

    def _continue(
        self, request: GenerationRequest, slot: int, sampler: Sampler, logits_at: int
    ) -> tuple[list[int], str, FinishReason]:
        """Generate token by token until the turn ends, a stop string is complete, or there is no room."""
        model, batch = self._model, self._model.batch
        stream = TextStream(request.stop)
        tokens: list[int] = []
        while True:
            token = sampler.sample(model.context, logits_at)
            if model.ends_generation(token):
                return tokens, stream.text, "stop"
            tokens.append(token)
            if stream.push(model.token_bytes(token)):
                return tokens, stream.text, "stop"
            if len(tokens) >= request.max_tokens:
                return tokens, stream.text, "length"
            self._check_not_closing()
            batch.clear()
            logits_at = batch.add(token, len(request.prompt) + len(tokens) - 1, slot, logits=True)
            model.decode()

    def _check_not_closing(self) -> None:
        if self._closing:
            raise LMError(f"The model {self._model.path.name} was closed while it was answering.")
