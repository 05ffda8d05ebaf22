"""Runs a query that nobody vouches for: in a child process that can read one SQLite database and nothing else."""

import json
import os
import subprocess
import sys
import weakref
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from threading import Lock, Timer
from typing import Any

from promptopt.errors import DataError, PromptoptError

Cell = None | int | float | str

_WORKER = Path(__file__).with_name("worker.py")
_START_S = 30.0


@dataclass(frozen=True)
class Limits:
    """What one query may use. Beyond any of them it fails.

    Attributes:
        time_limit_s: seconds of processor time.
        memory_limit_bytes: of SQLite's heap.
        max_rows: rows of the result.
        max_bytes: of the result, and of any single value on the way.
    """

    time_limit_s: float = 10.0
    memory_limit_bytes: int = 2**28
    max_rows: int = 100_000
    max_bytes: int = 2**24


@dataclass(frozen=True)
class Database:
    """A SQLite file, opened read-only, or a script of CREATE and INSERT that fills one in memory.

    A file is read as immutable: what stands in a write-ahead log beside it is not seen.
    """

    path: Path | None = None
    script: str = ""
    state: tuple[int, int] = field(default=(0, 0), init=False)

    def __post_init__(self) -> None:
        if self.path is None:
            return
        try:
            found = self.path.stat()
        except OSError as error:
            raise DataError(f"The database {str(self.path)!r} cannot be read: {error.strerror}.") from error
        # Part of equality, so that what is remembered of a database is forgotten when its file changes.
        object.__setattr__(self, "state", (found.st_size, found.st_mtime_ns))


@dataclass(frozen=True)
class QueryResult:
    """What became of a query: its rows, or in one line why it failed. A blob is its hexadecimal text."""

    columns: tuple[str, ...] = ()
    rows: tuple[tuple[Cell, ...], ...] = ()
    error: str = ""


def run_query(database: Database, query: str, limits: Limits | None = None) -> QueryResult:
    """Return what `query` finds in `database`; it can write nothing, load nothing and open no other file.

    Six walls: the file is opened `mode=ro&immutable=1`; an authorizer refuses everything that is no read (so ATTACH,
    PRAGMA, temporary tables, load_extension; also random(), so that scores repeat); SQLite's own limits; a progress
    handler that counts processor time; the limits of the operating system on the child's time, memory and files; the
    parent's clock. One statement per query. The child lives on for the next query, unless a limit ended it.

    Raises:
        DataError: the database cannot be opened, or its script fails.
        PromptoptError: the child process cannot work at all.
    """
    limits = limits or Limits()
    uri = f"{database.path.resolve().as_uri()}?mode=ro&immutable=1" if database.path else None
    answers = _worker(limits, os.getpid()).ask({"database": uri, "script": database.script, "query": query})
    if answers[0] != "ready":
        what = f"The database {str(database.path)!r}" if database.path else f"The script {database.script[:200]!r}"
        raise DataError(f"{what} cannot be used by SQLite: {answers[0]['broken']}.")
    if len(answers) < 2:
        return QueryResult(error="stopped by the limits of its process")
    answer = answers[1]
    if "error" in answer:
        return QueryResult(error=" ".join(answer["error"].split())[:300])
    return QueryResult(tuple(answer["columns"]), tuple(tuple(row) for row in answer["rows"]))


class _Worker:
    """A child process with one set of limits; asked by one thread at a time, started anew when it has died."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._lock = Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, task: dict[str, str | None]) -> list[Any]:
        """Return the lines that answer `task`: "ready" alone where the process ended over the query."""
        line = json.dumps(task).encode("ascii") + b"\n"
        with self._lock:
            # Once more if it died since the last query, e.g. because the system ran short of memory.
            for _ in range(2):
                answers = self._try(line)
                if answers:
                    return answers
        raise PromptoptError(f"The process that runs SQL queries does not start: {sys.executable} {_WORKER}.")

    def _try(self, line: bytes) -> list[Any]:
        process = self._process or self._start()
        assert process.stdin and process.stdout
        clock = Timer(_START_S + 4 * self._limits.time_limit_s, process.kill)
        clock.start()
        answers: list[Any] = []
        try:
            process.stdin.write(line)
            process.stdin.flush()
            while not answers or answers[-1] == "ready":
                answers.append(json.loads(process.stdout.readline()))
        except (OSError, ValueError):  # a closed pipe, a line that was cut short
            pass
        finally:
            clock.cancel()
            if not answers or answers[-1] == "ready":  # also where Ctrl-C left an answer unread
                self._process = None
                _end(process)
        return answers

    def _start(self) -> subprocess.Popen[bytes]:
        # Isolated, and without this process's environment, which may hold tokens.
        environment = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(_WORKER), json.dumps(asdict(self._limits))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
        )
        weakref.finalize(self, _end, process)
        self._process = process
        return process


@lru_cache(maxsize=4)
def _worker(limits: Limits, process_id: int) -> _Worker:
    # By process: a forked child must not share its parent's pipes.
    return _Worker(limits)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe:
            try:
                pipe.close()
            except OSError:  # what was not written has no reader any more
                continue
