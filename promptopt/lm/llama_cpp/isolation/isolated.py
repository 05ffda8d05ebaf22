"""`IsolatedEngine`: the engine in a child process, so that a crash in native code does not end the user's process."""

import os
import time
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import asdict
from threading import Semaphore
from typing import Any

from promptopt.errors import BusyError, ConfigError
from promptopt.lm.llama_cpp.engine import check_process
from promptopt.lm.llama_cpp.isolation.engine_call import Call
from promptopt.lm.llama_cpp.isolation.supervisor import Supervisor
from promptopt.lm.llama_cpp.isolation.wire import generated_from_wire, lora_to_wire, request_to_wire
from promptopt.lm.llama_cpp.lora import LoraSet
from promptopt.lm.llama_cpp.model import NativeModel
from promptopt.lm.llama_cpp.requests import EngineStats, Generated, GenerationRequest


class IsolatedEngine:
    """Does what `Engine` does, in another process. If that dies, what it was asked fails, and a new one is started.

    Args:
        model: the vocabulary (`NativeModel(..., vocab_only=True)`), which this owns and closes; the process loads the
            rest of the file with the same options.
        prefix_reuse: see `Engine`.

    Raises:
        ModelError: the model cannot be loaded.
        LMError: the process died while it loaded the model.
        ConfigError: this is Windows, which cannot hand a socket to a child process.
    """

    def __init__(self, model: NativeModel, *, prefix_reuse: bool = True) -> None:
        if os.name != "posix":
            raise ConfigError(f"isolated is True on {os.name!r}; it is allowed on POSIX systems. Use isolated=False.")
        self.model = model
        setup = {
            "path": os.path.abspath(model.path),
            "options": asdict(model.options),
            "prefix_reuse": prefix_reuse,
        }
        self._supervisor = Supervisor(setup, model.path.name)
        # As many as a line of this length would hold beside those that run.
        self._places = Semaphore(model.options.max_waiting + self._supervisor.loaded.parallel)
        self._pid = os.getpid()
        self._finalizer = weakref.finalize(self, _shut_down, self._supervisor, model, self._pid)

    @property
    def pid(self) -> int | None:
        """Id of the process that runs the model; None after it died, until the next request."""
        return self._supervisor.pid

    @property
    def n_ctx(self) -> int:
        """Tokens that one prompt with its answer may take."""
        return self._supervisor.loaded.n_ctx

    @property
    def parallel(self) -> int:
        """Requests that run at once; more wait."""
        return self._supervisor.loaded.parallel

    @property
    def batch_rule(self) -> str:
        """See `Engine.batch_rule`."""
        return self._supervisor.loaded.batch_rule

    def submit(
        self, request: GenerationRequest, *, on_text: Callable[[str], None] | None = None, wait: bool = True
    ) -> "Future[Generated]":
        """Queue a request; see `Engine.submit`. The future raises LMError too if the process dies."""
        check_process(self._pid)
        if not self._places.acquire(blocking=wait):
            raise BusyError(
                f"{self.model.options.max_waiting} requests are waiting for this model, which is the limit. Try again "
                "later, or raise max_waiting."
            )
        submitted_at = time.perf_counter()
        call = Call(
            "generate",
            {"request": request_to_wire(request), "stream": on_text is not None},
            lambda body: generated_from_wire(body, time.perf_counter() - submitted_at),
            on_text=on_text,
            on_left=self._places.release,
        )
        try:
            self._supervisor.ask(call)
        except BaseException:
            call.leave()
            raise
        return call.future

    def embed(self, texts: Sequence[Sequence[int]], *, normalize: bool) -> list[list[float]]:
        """Return a vector per text of token ids; see `Engine.embed`."""
        body = {"texts": [list(tokens) for tokens in texts], "normalize": normalize}
        vectors: list[list[float]] = self._call(Call("embed", body, list))
        return vectors

    def free_lora(self, lora: LoraSet) -> None:
        """Unload LoRA weights; see `Engine.free_lora`."""
        self._call(Call("free_lora", lora_to_wire(lora), lambda body: body))

    def _call(self, call: Call) -> Any:
        check_process(self._pid)
        self._supervisor.ask(call)
        return call.future.result()

    def stats(self) -> EngineStats:
        """Return counters since the model was loaded; what a dead process did counts as far as it was asked before."""
        check_process(self._pid)
        return self._supervisor.stats()

    def close(self) -> None:
        """End the process and free the vocabulary; requests that wait or run end with LMError."""
        self._finalizer()


def _shut_down(supervisor: Supervisor, model: NativeModel, pid: int) -> None:
    # In a process that was forked from this one, the socket and the child are not ours to end.
    if os.getpid() == pid:
        supervisor.close()
        model.close()
