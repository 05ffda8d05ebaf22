"""The process behind `IsolatedEngine`: `python -m promptopt.lm.llama_cpp.isolation.isolated_child SOCKET PARENT`.

Reads calls from a socket and answers them with an ordinary `Engine`. Ends, without ceremony, when the socket is closed
or the parent is gone: everything it holds belongs to the operating system. Never reads or writes the standard streams,
which native code may use.
"""

import json
import os
import signal
import socket
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from promptopt.lm.llama_cpp.engine import Engine
from promptopt.lm.llama_cpp.isolation.wire import (
    error_to_wire,
    generated_to_wire,
    line_of,
    lora_from_wire,
    request_from_wire,
)
from promptopt.lm.llama_cpp.model import CapacityWarning, LoadOptions, NativeModel
from promptopt.lm.llama_cpp.requests import Generated

PARENT_CHECK_S = 1.0
OOM_SCORE = "500"
"""Linux ends processes with a higher score first, from -1000 to 1000, when memory runs out."""


class Host:
    """Answers calls, whose kinds `serve` lists.

    Three threads beside the engine's own: this one only reads and never waits, so that a parent can always write;
    one writes; one loads the model and does what must wait for the engine.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._out: SimpleQueue[dict[str, Any] | None] = SimpleQueue()
        self._writer = threading.Thread(target=self._write, daemon=True)
        self._slow = ThreadPoolExecutor(1)
        self._engine: Future[Engine] = Future()
        self._lock = threading.Lock()
        self._requests: dict[int, Future[Generated] | None] = {}
        self._early_warnings: list[str] = []

    def serve(self) -> None:
        """Answer until the parent closes the socket."""
        self._writer.start()
        warnings.simplefilter("always", CapacityWarning)
        warnings.showwarning = self._show_warning
        slow: dict[str, Callable[[Any], Any]] = {
            "load": self._load,
            "embed": self._embed,
            "free_lora": self._free_lora,
        }
        with self._socket.makefile("rb") as lines:
            for line in lines:
                message = json.loads(line)
                number, kind, body = message["id"], message["do"], message["with"]
                if kind == "generate":
                    self._generate(number, body)
                elif kind == "cancel":
                    self._cancel(number)
                elif kind == "stats":
                    self._answer(number, lambda: asdict(self._engine.result().stats()))
                else:
                    self._slow.submit(self._answer, number, partial(slow[kind], body))

    def _answer(self, number: int, action: Callable[[], Any]) -> None:
        try:
            self._out.put({"id": number, "ok": action()})
        except BaseException as error:
            self._out.put({"id": number, "error": error_to_wire(error)})
            if not self._engine.done():
                # Without a model there is nothing to live for.
                self._out.put(None)

    def _write(self) -> None:
        while (message := self._out.get()) is not None:
            try:
                self._socket.sendall(line_of(message))
            except OSError:
                break
        os._exit(0)

    def _show_warning(self, message: Warning | str, category: type[Warning], *where: Any, **how: Any) -> None:
        if not issubclass(category, CapacityWarning):
            return
        if self._engine.done():
            self._out.put({"warning": str(message), "parallel": self._engine.result().parallel})
        else:
            self._early_warnings.append(str(message))

    # Calls that may take their time, one after the other

    def _load(self, body: dict[str, Any]) -> dict[str, Any]:
        # The parent counts who waits; a line without end never makes the reading thread wait.
        options = LoadOptions(**{**body["options"], "max_waiting": sys.maxsize})
        model = NativeModel(Path(body["path"]), options)
        engine = Engine(model, prefix_reuse=body["prefix_reuse"])
        self._engine.set_result(engine)
        return {
            "n_ctx": engine.n_ctx,
            "parallel": engine.parallel,
            "batch_rule": engine.batch_rule,
            "warnings": self._early_warnings,
        }

    def _embed(self, body: dict[str, Any]) -> list[list[float]]:
        return self._engine.result().embed(body["texts"], normalize=body["normalize"])

    def _free_lora(self, body: list[Any]) -> None:
        self._engine.result().free_lora(lora_from_wire(body))

    # Requests

    def _generate(self, number: int, body: dict[str, Any]) -> None:
        with self._lock:
            self._requests[number] = None
        self._engine.add_done_callback(lambda loaded: self._begin(loaded.result(), number, body))

    def _begin(self, engine: Engine, number: int, body: dict[str, Any]) -> None:
        on_text = partial(self._say, number) if body["stream"] else None
        try:
            with self._lock:
                if number not in self._requests:
                    return
                future = self._requests[number] = engine.submit(request_from_wire(body["request"]), on_text=on_text)
        except BaseException as error:
            self._forget(number)
            self._out.put({"id": number, "error": error_to_wire(error)})
        else:
            future.add_done_callback(partial(self._end, number))

    def _say(self, number: int, piece: str) -> None:
        self._out.put({"id": number, "text": piece})

    def _end(self, number: int, future: "Future[Generated]") -> None:
        self._forget(number)
        if not future.cancelled():
            self._answer(number, lambda: generated_to_wire(future.result()))

    def _cancel(self, number: int) -> None:
        future = self._forget(number)
        if future is not None:
            future.cancel()

    def _forget(self, number: int) -> "Future[Generated] | None":
        with self._lock:
            return self._requests.pop(number, None)


def _watch_parent(parent: int) -> None:
    """End with the parent even where a third process, forked from it, still holds the socket."""
    while os.getppid() == parent:
        time.sleep(PARENT_CHECK_S)
    os._exit(0)


def _offer_to_oom_killer() -> None:
    """Make Linux end this process rather than its parent when memory runs out; others have no such file."""
    try:
        Path("/proc/self/oom_score_adj").write_text(OOM_SCORE, encoding="ascii")
    except OSError:
        return


def main() -> None:
    """Serve the parent until it is done."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection = socket.socket(fileno=int(sys.argv[1]))
    connection.set_inheritable(False)
    threading.Thread(target=_watch_parent, args=(int(sys.argv[2]),), daemon=True).start()
    _offer_to_oom_killer()
    try:
        Host(connection).serve()
    except ConnectionError:
        pass
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    main()
