"""The thread that owns a model's context, and the line in which other threads leave requests and calls for it."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from promptopt.errors import LMError, PromptoptError
from promptopt.lm.llama_cpp.batching.batcher import Batcher
from promptopt.lm.llama_cpp.batching.waiting import WaitingLine
from promptopt.lm.llama_cpp.lora import LoraSet
from promptopt.lm.llama_cpp.model import NativeModel
from promptopt.lm.llama_cpp.requests import EngineStats, Job, fail


class Worker:
    """The thread and its line. Holds no reference to `Engine`, so that an engine can be collected.

    Attributes:
        closing: what to run before the model is freed.

    Raises:
        ModelError: there is no memory for a context.
    """

    def __init__(self, model: NativeModel, *, prefix_reuse: bool) -> None:
        self._model = model
        self._line: WaitingLine[Job] = WaitingLine(model.options.max_waiting)
        self.batcher = Batcher(model, self._line, prefix_reuse=prefix_reuse)
        self.closing: list[Callable[[], None]] = []
        self._calls: list[tuple[Callable[[], Any], Future[Any]]] = []
        self._thread: threading.Thread | None = None
        self._start_lock = threading.Lock()

    # Called from any thread

    def submit(self, job: Job, *, wait: bool = True) -> None:
        """Put a job into the line; raises LMError if the model was closed, BusyError if there is no room."""
        self._start()
        if not self._line.put(job, wait=wait):
            raise self._closed_error()

    def call(self, action: Callable[[], Any]) -> Any:
        """Run `action` on the worker thread between two batches and return its result."""
        future: Future[Any] = Future()
        self._start()
        with self._line.changed:
            if self._line.closed:
                raise self._closed_error()
            self._calls.append((action, future))
            self._line.changed.notify_all()
        return future.result()

    def free_lora(self, lora: LoraSet) -> None:
        """Unload LoRA weights; raises LMError if a running request uses them."""
        self.call(lambda: self.batcher.seating.free_lora(lora, running=self.batcher.running > 0))

    def shut_down(self) -> None:
        """Stop the thread and free the model; safe to call twice."""
        with self._start_lock:
            left = self._line.close()
            thread = self._thread
        for job in left:
            fail(job, self._closed_error())
        if thread is None:
            self._free()
        elif thread is not threading.current_thread():
            thread.join()

    def stats(self) -> EngineStats:
        """Return the counters."""
        counts = dict(self.batcher.counts)
        counts["requests_running"] = self.batcher.running
        counts["requests_waiting"] = len(self._line)
        counts["resident_tokens"] = self.batcher.seating.resident_tokens
        counts["kv_bytes"] = self.batcher.seating.kv_bytes
        whole = {name: int(value) for name, value in counts.items() if not name.endswith("_seconds")}
        return EngineStats(**{**counts, **whole})  # type: ignore[arg-type]

    def _start(self) -> None:
        with self._start_lock:
            if self._thread is None and not self._line.closed:
                self._thread = threading.Thread(target=self._serve, name="promptopt-llama-cpp", daemon=True)
                self._thread.start()

    def _closed_error(self) -> LMError:
        return LMError(f"The model {self._model.path.name} was closed; load it again.")

    # The thread

    def _serve(self) -> None:
        try:
            while self._wait_for_work():
                started = time.perf_counter()
                self._run_calls()
                self._round()
                self.batcher.counts["busy_seconds"] += time.perf_counter() - started
        finally:
            # However the thread ends: nobody may wait for ever.
            for job in self._line.close():
                fail(job, self._closed_error())
            self.batcher.end_all(self._closed_error())
            for _, future in self._taken_calls():
                future.set_exception(self._closed_error())
            # Freed on the thread that used it, so never in the middle of a decode.
            self._free()

    def _wait_for_work(self) -> bool:
        with self._line.changed:
            while not (self._line.closed or len(self._line) or self.batcher.running or self._calls):
                self._line.changed.wait()
            return not self._line.closed

    def _run_calls(self) -> None:
        for action, future in self._taken_calls():
            try:
                future.set_result(action())
            except BaseException as error:
                future.set_exception(error)

    def _taken_calls(self) -> list[tuple[Callable[[], Any], "Future[Any]"]]:
        with self._line.changed:
            calls, self._calls = self._calls, []
        return calls

    def _round(self) -> None:
        try:
            self.batcher.round()
        except BaseException as error:
            failure = error
            if not isinstance(error, PromptoptError):
                failure = LMError(f"{self._model.path.name} broke while answering: {type(error).__name__}: {error}.")
                failure.__cause__ = error
            # After a failure nobody knows what the lanes hold.
            self.batcher.end_all(failure)
            self.batcher.seating.remake(self.batcher.seating.context.lane_tokens)

    def _free(self) -> None:
        for action in self.closing:
            action()
        self.batcher.close()
        self._model.close()
