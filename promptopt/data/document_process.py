"""Asks the reading process (`document_child`) for one document after the other, and outlives whatever becomes of it."""

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType

from promptopt.config.data import DocumentLimits
from promptopt.data.document_child import HEADER_BYTES
from promptopt.data.document_formats import Content, UnreadableError
from promptopt.errors import DataError

_CHILD_MODULE = "promptopt.data.document_child"
_KEPT_VARIABLES = ("PATH", "LANG", "LC_ALL", "TMPDIR", "SYSTEMROOT")
_BYTES_PER_CHARACTER = 6
"""JSON writes a control character as \\u and four digits; no character takes more."""
_SPARE_BYTES = 1 << 20
_START_S = 30.0
_END_S = 2.0


class DocumentProcess:
    """A process that reads documents; started at the first one, and again after each that it did not survive.

    A context manager.

    Args:
        encoding: of text files; see `decode_text`.
    """

    def __init__(self, limits: DocumentLimits, encoding: str = "auto") -> None:
        self._limits = limits
        self._encoding = encoding
        self._child: subprocess.Popen[bytes] | None = None
        self._read = 0

    def __enter__(self) -> "DocumentProcess":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the process."""
        child, self._child, self._read = self._child, None, 0
        if child is None:
            return
        child.kill()
        child.wait()
        for stream in (child.stdin, child.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()

    def read(self, path: Path) -> Content:
        """Return what stands in the file `path`.

        Raises:
            UnreadableError: it is damaged, encrypted, binary, empty or beyond a limit, or the process died of it.
            DataError: no process can be started.
        """
        has_read = self._read > 0
        answer = self._ask(path)
        # Memory fills up over many documents, and one may do harm that shows at the next: ask a fresh process.
        if "worn" in answer and has_read:
            self.close()
            answer = self._ask(path)
        if "worn" in answer:
            self.close()
        problem = answer.get("problem", answer.get("worn"))
        if problem is not None:
            raise UnreadableError(str(problem))
        return Content(title=str(answer["title"]), pages=list(map(str, answer["pages"])))  # type: ignore[call-overload]

    def _ask(self, path: Path) -> dict[str, object]:
        child = self._started()
        limits = self._limits.model_dump()
        request = {"path": str(path.absolute()), "encoding": self._encoding, "limits": limits}
        assert child.stdin is not None and child.stdout is not None
        self._read += 1
        deadline = time.monotonic() + self._limits.seconds
        try:
            child.stdin.write(json.dumps(request).encode("ascii") + b"\n")
            child.stdin.flush()
            length = int.from_bytes(self._receive(child, HEADER_BYTES, deadline), "big")
            if length > self._limits.characters * _BYTES_PER_CHARACTER * 2 + _SPARE_BYTES:
                raise UnreadableError("made the process that read it answer beyond all bounds")
            answer = json.loads(self._receive(child, length, deadline))
        except TimeoutError as error:
            self.close()
            raise UnreadableError(f"took more than {self._limits.seconds:g} s to read (limits.seconds)") from error
        except (OSError, EOFError, ValueError):
            return {"worn": f"crashed the process that read it ({_cause(child)})"}
        except BaseException:
            self.close()
            raise
        assert isinstance(answer, dict)
        return answer

    def _receive(self, child: "subprocess.Popen[bytes]", count: int, deadline: float) -> bytes:
        assert child.stdout is not None
        parts: list[bytes] = []
        with selectors.DefaultSelector() as selector:
            selector.register(child.stdout, selectors.EVENT_READ)
            while count > 0:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise TimeoutError
                part = os.read(child.stdout.fileno(), min(count, 1 << 20))
                if not part:
                    raise EOFError
                parts.append(part)
                count -= len(part)
        return b"".join(parts)

    def _started(self) -> "subprocess.Popen[bytes]":
        if self._child is not None and self._child.poll() is None:
            return self._child
        self.close()
        # Entries that this process added to sys.path too: promptopt may run from a folder where nothing is installed.
        paths = [os.path.abspath(path) for path in sys.path if isinstance(path, str)]
        kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
        try:
            self._child = subprocess.Popen(
                # -P: a file in the current folder that is called like a module of Python must not be imported.
                [sys.executable, "-P", "-B", "-m", _CHILD_MODULE],
                env={**kept, "PYTHONPATH": os.pathsep.join(paths)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                # Ctrl-C in the terminal is for this process, which decides.
                start_new_session=True,
            )
            self._receive(self._child, HEADER_BYTES, time.monotonic() + _START_S)  # an empty answer: it is ready
        except (OSError, EOFError, TimeoutError) as error:
            self.close()
            raise DataError(
                f"The process that reads documents does not start ({type(error).__name__}: {error}). Try "
                f"`{sys.executable} -m {_CHILD_MODULE}`, which says why."
            ) from error
        return self._child


def _cause(child: "subprocess.Popen[bytes]") -> str:
    try:
        code = child.wait(_END_S)
    except subprocess.TimeoutExpired:
        return "it goes on, but its answer makes no sense"
    if code < 0:
        with contextlib.suppress(ValueError):
            return signal.Signals(-code).name
    return f"exit code {code}"
