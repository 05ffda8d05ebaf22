"""Keeps one engine process going: starts it, starts another for the next request when it died, and gives up in time.

Holds no reference to `IsolatedEngine`, so that an engine can be collected.
"""

import contextlib
import sys
import threading
import warnings
from dataclasses import dataclass, fields, replace
from typing import Any

from promptopt.errors import LMError, PromptoptError
from promptopt.lm.llama_cpp.isolation.engine_call import Call
from promptopt.lm.llama_cpp.isolation.engine_process import EngineProcess
from promptopt.lm.llama_cpp.model import CapacityWarning
from promptopt.lm.llama_cpp.requests import EngineStats

MAX_DEATHS = 3
"""Deaths in a row, without one answer between them, after which no further process is started."""
STATS_TIMEOUT_S = 2.0


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a process says of the model it has loaded."""

    n_ctx: int
    parallel: int
    batch_rule: str
    warnings: tuple[str, ...] = ()


class Supervisor:
    """The process behind one isolated engine, whichever it is at the moment. Thread-safe.

    Args:
        setup: what a process needs to load the model.
        name: what errors call the model.

    Raises:
        PromptoptError: the model cannot be loaded; the same error as without isolation.
        LMError: the process died while it loaded the model.
    """

    def __init__(self, setup: dict[str, Any], name: str) -> None:
        self._setup = setup
        self._name = name
        # Reentrant: a collected engine may be closed by whichever thread happens to hold this.
        self._lock = threading.RLock()
        self._deaths = 0
        self._last_death = ""
        self._closed = self._was_loaded = False
        self._process: EngineProcess | None = None
        self._before = self._seen = EngineStats()
        load = self._start()
        try:
            self.loaded: Loaded = load.future.result()
        except BaseException:
            self.close()
            raise
        for text in self.loaded.warnings:
            warnings.warn(text, CapacityWarning, stacklevel=4)

    @property
    def pid(self) -> int | None:
        """Process id of the engine; None while there is none."""
        process = self._process
        return process.pid if process is not None and process.alive else None

    def ask(self, call: Call) -> None:
        """Hand a call to the process, to a new one if the last has died.

        Raises:
            LMError: the engine was closed, or died too often.
        """
        while not self._living().ask(call):
            pass

    def _living(self) -> EngineProcess:
        with self._lock:
            if self._closed:
                raise self._closed_error()
            if self._process is None or not self._process.alive:
                if self._deaths >= MAX_DEATHS:
                    raise LMError(self._refusal())
                self._start()
            assert self._process is not None
            return self._process

    def _start(self) -> Call:
        self._settle()
        load = Call("load", self._setup, self._learn)
        try:
            self._process = EngineProcess(
                load, on_message=self._warn, on_answer=self._note_answer, on_end=self._note_end
            )
        except OSError as error:
            raise LMError(
                f"No process can be started for {self._name}: {error}. Free memory or processes, or load the model "
                "without isolated=True."
            ) from error
        return load

    def _settle(self) -> None:
        """Add the counters of the process that ended to those of earlier ones."""
        total = _sum(self._before, self._seen)
        self._before = replace(total, requests_running=0, requests_waiting=0, resident_tokens=0, kv_bytes=0)
        self._seen = EngineStats()

    def stats(self) -> EngineStats:
        """Return the counters of all processes so far; those of a dead one as far as they were known."""
        process = self._process
        if process is not None and process.alive:
            if not process.loaded:
                return replace(self._before, requests_waiting=process.waiting)
            self._look_at(process)
        with self._lock:
            return _sum(self._before, self._seen)

    def _look_at(self, process: EngineProcess) -> None:
        call = Call("stats", None, lambda body: EngineStats(**body))
        # Whoever watches a process that hangs or dies gets the numbers from before.
        with contextlib.suppress(PromptoptError, TimeoutError):
            if process.ask(call):
                seen: EngineStats = call.future.result(STATS_TIMEOUT_S)
                with self._lock:
                    if process is self._process:
                        self._seen = seen

    def close(self) -> None:
        """End the process; the calls it holds fail. Safe to call twice."""
        with self._lock:
            self._closed = True
            process = self._process
        if process is not None:
            process.stop()

    # On the thread that reads from a process

    def _learn(self, body: dict[str, Any]) -> Loaded:
        loaded = Loaded(body["n_ctx"], body["parallel"], body["batch_rule"], tuple(body["warnings"]))
        self.loaded, self._was_loaded = loaded, True
        return loaded

    def _warn(self, message: dict[str, Any]) -> None:
        self.loaded = replace(self.loaded, parallel=message["parallel"])
        # Where warnings are errors, nobody on this thread could catch one.
        with contextlib.suppress(Warning):
            warnings.warn(message["warning"], CapacityWarning, stacklevel=2)

    def _note_answer(self) -> None:
        with self._lock:
            self._deaths = 0

    def _note_end(self, process: EngineProcess, held: list[Call]) -> PromptoptError:
        """Keep the books on a process that ended, and say what its calls fail with."""
        lost = sum(call.kind == "generate" for call in held)
        with self._lock:
            if process is self._process:
                self._settle()
            self._before = replace(self._before, requests_failed=self._before.requests_failed + lost)
            if self._closed:
                return self._closed_error()
            if process.load_error is not None:
                return process.load_error
            self._deaths += 1
            self._last_death = process.cause_of_death
            return LMError(self._obituary(process))

    def _obituary(self, process: EngineProcess) -> str:
        said = process.last_words
        doing = "while it held this request" if process.loaded else "while it loaded the model"
        text = f"The process that runs {self._name} died with {self._last_death} {doing}. "
        text += f"It said: {said[:600]}. " if said else ""
        if self._was_loaded and self._deaths < MAX_DEATHS:
            text += "It is started again for the next request. "
        return text + self._advice()

    def _refusal(self) -> str:
        return (
            f"The process that runs {self._name} died {self._deaths} times in a row without one answer, the last time "
            f"with {self._last_death}; it is not started again. {self._advice()} Then load the model again."
        )

    def _advice(self) -> str:
        if "SIGKILL" in self._last_death:
            return "SIGKILL mostly means that memory ran out: lower n_ctx or parallel, or use a smaller quantization."
        if "exit code" in self._last_death:
            return f"Check that {sys.executable} can import promptopt and llama_cpp."
        return (
            "This is a fault in native code: update llama-cpp-python, try n_gpu_layers=0 or another quantization, and "
            "leave out a request that brings it back."
        )

    def _closed_error(self) -> LMError:
        return LMError(f"The model {self._name} was closed; load it again.")


def _sum(first: EngineStats, second: EngineStats) -> EngineStats:
    names = [field.name for field in fields(EngineStats)]
    return EngineStats(**{name: getattr(first, name) + getattr(second, name) for name in names})
