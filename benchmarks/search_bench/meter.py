"""Counts what an optimizer costs: by the engine's own counters, so that no thread and no second attempt escapes.

`promptopt.lm.collect` would not do: its list travels in a context variable, and DSPy's ParallelExecutor starts threads
that do not inherit it.
"""

import threading
import time
from typing import Any

from search_bench.records import Spent

from promptopt.lm.llama_cpp.facade import LlamaCpp

SETTLE_S = 120.0


class RememberedAnswers:
    """A response cache in memory, empty at first: what is asked twice costs nothing, as with DSPy's own."""

    def __init__(self) -> None:
        self._answers: dict[str, dict[str, Any]] = {}
        self._lock = threading.Lock()
        self.calls = 0
        self.tokens = 0

    def get(self, key: str) -> dict[str, Any] | None:
        """Return what is stored under `key`, and count it."""
        with self._lock:
            found = self._answers.get(key)
            if found is not None:
                self.calls += 1
                self.tokens += found["prompt_tokens"] + found["completion_tokens"]
            return found

    def put(self, key: str, value: dict[str, Any]) -> None:
        """Store `value` under `key`."""
        with self._lock:
            self._answers[key] = value

    def close(self) -> None:
        """Nothing is open."""


class Meter:
    """Starts at nothing spent; `spent` may be called from any thread.

    Args:
        lm: counted from now on, copies included: they share the engine.
        memory: what answers repeated requests, if anything does.
    """

    def __init__(self, lm: LlamaCpp, memory: RememberedAnswers | None = None) -> None:
        self._lm = lm
        self._memory = memory
        self._before = lm.chat.stats()
        self._started, self._cpu = time.perf_counter(), time.process_time()

    def spent(self) -> Spent:
        """Return what was spent until now. A request counts its prompt when it starts, its answer when it ends."""
        seconds = time.perf_counter() - self._started
        now, before = self._lm.chat.stats(), self._before
        done = now.requests_done + now.requests_failed - before.requests_done - before.requests_failed
        return Spent(
            calls=done + now.requests_running,
            prompt_tokens=now.prompt_tokens - before.prompt_tokens,
            prompt_tokens_computed=now.prompt_tokens_computed - before.prompt_tokens_computed,
            completion_tokens=now.completion_tokens - before.completion_tokens,
            remembered_calls=self._memory.calls if self._memory else 0,
            remembered_tokens=self._memory.tokens if self._memory else 0,
            seconds=seconds,
            cpu_seconds=time.process_time() - self._cpu,
        )

    def settled(self) -> Spent:
        """Return what was spent once nothing runs any more; the seconds are those until now."""
        seconds = time.perf_counter() - self._started
        deadline = time.monotonic() + SETTLE_S
        while time.monotonic() < deadline:
            stats = self._lm.chat.stats()
            if not stats.requests_running and not stats.requests_waiting:
                break
            time.sleep(0.02)
        return self.spent().model_copy(update={"seconds": seconds})
