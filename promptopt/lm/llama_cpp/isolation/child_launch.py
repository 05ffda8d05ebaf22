"""Starts the process of an isolated engine, and finds out what it died of."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
from typing import IO

SAID_BYTES = 8192
CHILD_MODULE = "promptopt.lm.llama_cpp.isolation.isolated_child"


def launch(theirs: socket.socket, said: IO[bytes]) -> "subprocess.Popen[bytes]":
    """Start a child with its end of a socket; what it or native code prints goes to `said`.

    Raises:
        OSError: the system refuses.
    """
    # Entries that this process added to sys.path too: promptopt may run from a folder where nothing is installed.
    paths = [os.path.abspath(path) for path in sys.path if isinstance(path, str)]
    # A backtrace by llama.cpp starts a debugger where there is one, and takes its time.
    environment = {"GGML_NO_BACKTRACE": "1", **os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    return subprocess.Popen(
        # -P: a file in the current folder that is called like a module of Python must not be imported.
        [sys.executable, "-P", "-m", CHILD_MODULE, str(theirs.fileno()), str(os.getpid())],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=said,
        stderr=said,
        pass_fds=(theirs.fileno(),),
        # Ctrl-C in the terminal is for this process, which decides.
        start_new_session=True,
    )


def cause_of_death(code: int | None) -> str:
    """Name the signal or exit code of a return code."""
    if code is None or code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {-code} ({signal.Signals(-code).name})"
    except ValueError:
        return f"signal {-code}"


def last_words(said: IO[bytes]) -> str:
    """Return what a child wrote before it ended: lines that speak of an error, or the last one; empty if none."""
    with contextlib.suppress(OSError, ValueError):
        size = os.fstat(said.fileno()).st_size
        raw = os.pread(said.fileno(), SAID_BYTES, max(0, size - SAID_BYTES))
        lines = [line.strip() for line in raw.decode("utf-8", "replace").splitlines() if line.strip()]
        telling = [line for line in lines if any(word in line.lower() for word in ("error", "assert", "fail"))]
        return " | ".join(telling[-3:] or lines[-1:])
    return ""
