"""The child process that runs queries: a task per line of standard input, answers on standard output.

Imports no promptopt, and little else, because scores wait for its start. Its argument is the JSON of `sandbox.Limits`.
A task (JSON) has `database` (URI) or `script` (SQL text that makes a database in memory), and `query`. The answer is
the line `"ready"` once the database is open, then a line with `columns` and `rows`, or with `error`. A database that
cannot be opened gives one line with `broken` instead. Every task has a connection of its own.
"""

from __future__ import annotations

import json
import math
import resource
import sqlite3
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

READS = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
# `random` only because a score has to be the same twice; the others reach code or files.
REFUSED_FUNCTIONS = {"load_extension", "random", "randomblob", "fts3_tokenizer", "readfile", "writefile", "edit"}
BUILDS = READS | {
    sqlite3.SQLITE_CREATE_TABLE,
    sqlite3.SQLITE_CREATE_INDEX,
    sqlite3.SQLITE_CREATE_VIEW,
    sqlite3.SQLITE_INSERT,
    sqlite3.SQLITE_UPDATE,
    sqlite3.SQLITE_REINDEX,
    sqlite3.SQLITE_TRANSACTION,
}
STEPS_BETWEEN_LOOKS = 5_000


def main() -> None:
    """Answer tasks until standard input ends."""
    limits = json.loads(sys.argv[1])
    _limit_process(limits)
    for line in sys.stdin.buffer:
        _limit_processor(limits)
        _serve(json.loads(line), limits)


def _serve(task: dict[str, Any], limits: dict[str, Any]) -> None:
    connection = None
    try:
        try:
            connection = _open(task, limits)
            connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchall()
        except (sqlite3.Error, sqlite3.Warning, MemoryError, ValueError) as error:
            _say({"broken": str(error) or type(error).__name__})
            return
        _say("ready")
        try:
            _say(_answer(connection, task["query"], limits))
        except MemoryError:
            _say({"error": "out of memory"})
        except (sqlite3.Error, sqlite3.Warning, ValueError, OverflowError) as error:
            _say({"error": str(error) or type(error).__name__})
    finally:
        if connection:
            connection.close()


def _limit_process(limits: dict[str, Any]) -> None:
    """Bound what SQLite's own limits leave open: memory outside its heap, and files."""
    for limit, value in (
        (resource.RLIMIT_AS, limits["memory_limit_bytes"] + 2**29),  # half a GiB for Python and mapped libraries
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        # macOS refuses some of them; SQLite's limits and the parent's clock hold there.
        try:
            resource.setrlimit(limit, (value, value))
        except (ValueError, OSError):
            continue


def _limit_processor(limits: dict[str, Any]) -> None:
    """Let the system end this process should one step of SQLite (LIKE, printf) outlast the progress handler."""
    seconds = math.ceil(time.process_time() + limits["time_limit_s"]) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, resource.getrlimit(resource.RLIMIT_CPU)[1]))


def _open(task: dict[str, Any], limits: dict[str, Any]) -> sqlite3.Connection:
    """Return a connection that can do nothing but read."""
    database = task["database"]
    connection = sqlite3.connect(database or ":memory:", uri=bool(database), isolation_level=None)
    connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
    for pragma in ("trusted_schema=OFF", "temp_store=MEMORY", f"hard_heap_limit={limits['memory_limit_bytes']}"):
        connection.execute(f"PRAGMA {pragma}")
    for limit, value in (
        (sqlite3.SQLITE_LIMIT_ATTACHED, 0),
        (sqlite3.SQLITE_LIMIT_WORKER_THREADS, 0),
        (sqlite3.SQLITE_LIMIT_LENGTH, limits["max_bytes"]),
        (sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 1_000),
    ):
        connection.setlimit(limit, value)
    _limit_time(connection, limits["time_limit_s"])
    if not database:
        connection.set_authorizer(_authorizer(BUILDS))
        connection.executescript(task["script"])
        connection.set_authorizer(None)
    connection.execute("PRAGMA query_only=ON")
    connection.set_authorizer(_authorizer(READS))
    return connection


def _limit_time(connection: sqlite3.Connection, seconds: float) -> None:
    # Processor time: a busy machine must not turn a right query into a wrong one.
    end = time.process_time() + seconds
    connection.set_progress_handler(lambda: time.process_time() > end, STEPS_BETWEEN_LOOKS)


def _authorizer(allowed: set[int]) -> Any:
    def verdict(action: int, first: str | None, second: str | None, *_: str | None) -> int:
        if action == sqlite3.SQLITE_FUNCTION and (second or "").lower() in REFUSED_FUNCTIONS:
            return sqlite3.SQLITE_DENY
        return sqlite3.SQLITE_OK if action in allowed else sqlite3.SQLITE_DENY

    return verdict


def _answer(connection: sqlite3.Connection, query: str, limits: dict[str, Any]) -> dict[str, Any]:
    cursor = connection.execute(query)
    if cursor.description is None:
        return {"error": "the query returns no rows: it is no SELECT"}
    rows: list[list[Any]] = []
    size = 0
    for row in cursor:
        rows.append([value.hex() if isinstance(value, bytes) else value for value in row])
        size += sum(len(value) if isinstance(value, str) else 8 for value in rows[-1])
        if len(rows) > limits["max_rows"] or size > limits["max_bytes"]:
            return {"error": f"the result has more than {limits['max_rows']} rows or {limits['max_bytes']} bytes"}
    return {"columns": [column[0] for column in cursor.description], "rows": rows}


def _say(answer: object) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
