"""One child process that runs an engine: started, asked over a socket, and reported when it ends. Restarts nothing.

Ends by itself when its socket is closed, and so when this process dies. Answers arrive on a thread of their own.
"""

import contextlib
import json
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable
from typing import Any

from promptopt.errors import LMError, PromptoptError
from promptopt.lm.llama_cpp.isolation.child_launch import cause_of_death, last_words, launch
from promptopt.lm.llama_cpp.isolation.engine_call import Call
from promptopt.lm.llama_cpp.isolation.wire import error_from_wire, line_of

GRACE_S = 2.0
"""Seconds that a process has to end by itself before it is killed."""


class EngineProcess:
    """A running child; loads the model first, and takes calls meanwhile.

    Args:
        load: the call that loads the model. If it fails, the process ends, and later calls fail likewise.
        on_message: receives what no call asked for (warnings), on the reading thread.
        on_answer: runs before an answer or embedding is handed over.
        on_end: tells, when the process has ended, the error that the calls it held (its second argument) fail with.
    """

    def __init__(
        self,
        load: Call,
        *,
        on_message: Callable[[dict[str, Any]], None],
        on_answer: Callable[[], None],
        on_end: Callable[["EngineProcess", list[Call]], PromptoptError],
    ) -> None:
        self._load = load
        self._on_message = on_message
        self._on_answer = on_answer
        self._on_end = on_end
        self._lock = threading.Lock()
        self._send_lock = threading.Lock()
        self._calls: dict[int, Call] = {}
        self._next = 0
        self._ended = False
        self.load_error: PromptoptError | None = None
        # What native code says before it dies goes into a file: nobody has to read it while all is well.
        self._said = tempfile.TemporaryFile()  # noqa: SIM115  (closed when the process has ended)
        self._socket, theirs = socket.socketpair()
        try:
            with theirs:
                self._process = launch(theirs, self._said)
        except BaseException:
            self._socket.close()
            self._said.close()
            raise
        self._thread = threading.Thread(target=self._serve, name="promptopt-engine-process", daemon=True)
        self._thread.start()
        self.ask(load)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it runs, as far as is known."""
        return not self._ended and self._process.poll() is None

    @property
    def loaded(self) -> bool:
        """Whether the model is loaded."""
        return self._load.future.done()

    @property
    def waiting(self) -> int:
        """Requests it holds that are not answered."""
        return sum(call.kind == "generate" for call in list(self._calls.values()))

    def ask(self, call: Call) -> bool:
        """Hand a call over; False if the process has ended. Cancelling the call's future gives it up."""
        with self._lock:
            if self._ended:
                return False
            number, self._next = self._next, self._next + 1
            self._calls[number] = call
        self._send({"id": number, "do": call.kind, "with": call.body})
        call.future.add_done_callback(lambda future: self._give_up(number) if future.cancelled() else None)
        return True

    def _give_up(self, number: int) -> None:
        call = self._pop(number)
        if call is not None:
            call.leave()
            self._send({"id": number, "do": "cancel", "with": None})

    def _pop(self, number: int) -> Call | None:
        with self._lock:
            return self._calls.pop(number, None)

    def _send(self, message: dict[str, Any]) -> None:
        # If the process is dead, the reading thread finds out and ends its calls.
        with self._send_lock, contextlib.suppress(OSError):
            self._socket.sendall(line_of(message))

    def stop(self) -> None:
        """Make the process end and wait until it has; its calls fail."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        if threading.current_thread() is self._thread:
            # A callback closes the engine: this thread goes on reading, and finds the end, afterwards.
            self._process.kill()
            self._process.wait()
            return
        self._thread.join(GRACE_S)
        if self._thread.is_alive():
            self._process.kill()
            self._process.wait()
            # Not for ever: a callback on that thread may be waiting for whoever closes this.
            self._thread.join(GRACE_S)

    # The reading thread

    def _serve(self) -> None:
        try:
            with contextlib.suppress(OSError), self._socket.makefile("rb") as lines:
                for line in lines:
                    # A process that dies while it writes leaves half a line.
                    if line.endswith(b"\n"):
                        self._take(json.loads(line))
        finally:
            self._finish()

    def _take(self, message: dict[str, Any]) -> None:
        number = message.get("id")
        if number is None:
            self._on_message(message)
        elif "text" in message:
            self._hand_text(number, message["text"])
        elif (call := self._pop(number)) is None:
            return
        elif "error" in message:
            error = error_from_wire(message["error"])
            if call is self._load:
                self.load_error = error
            call.fail(error)
        else:
            if call.kind in ("generate", "embed"):
                self._on_answer()
            call.succeed(message["ok"])

    def _hand_text(self, number: int, piece: str) -> None:
        call = self._calls.get(number)
        if call is None or call.on_text is None:
            return
        try:
            call.on_text(piece)
        except Exception as error:
            self._give_up(number)
            failure = LMError(f"The receiver of the text failed: {type(error).__name__}: {error}.")
            failure.__cause__ = error
            call.fail(failure)

    def _finish(self) -> None:
        try:
            self._process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        with self._lock:
            self._ended = True
            held, self._calls = list(self._calls.values()), {}
        with self._send_lock:
            self._socket.close()
        error = self._on_end(self, held)
        self._said.close()
        for call in held:
            # One object per call: an exception carries the traceback of the thread that raised it.
            call.fail(type(error)(*error.args))

    @property
    def cause_of_death(self) -> str:
        """The signal or exit code it ended with."""
        return cause_of_death(self._process.returncode)

    @property
    def last_words(self) -> str:
        """What it wrote before it ended; readable until `on_end` returns."""
        return last_words(self._said)
