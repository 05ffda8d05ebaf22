"""The response cache: answers on disk, found again by everything that decides them. Knows no model and no prompt.

SQLite in WAL mode, so several threads and processes share one file and a killed process leaves it whole. A cache only
saves time: when its disk is full or read-only it warns once and steps aside, and no answer is lost.
"""

import hashlib
import json
import sqlite3
import threading
import time
import warnings
from pathlib import Path
from types import TracebackType
from typing import Any

DEFAULT_MAX_BYTES = 1 << 30
FILE_NAME = "responses.sqlite"
BUSY_TIMEOUT_S = 10.0
EVICT_TO = 0.8
CHECK_EVERY = 256

_SCHEMA = """
CREATE TABLE IF NOT EXISTS responses (
    key TEXT PRIMARY KEY, value TEXT NOT NULL, size INTEGER NOT NULL, stored_at REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS responses_by_age ON responses (stored_at);
"""


class CacheWarning(UserWarning):
    """The response cache stepped aside; answers are computed and not remembered."""


def cache_key(parts: dict[str, Any]) -> str:
    """Return the SHA-256 (hex) of everything that decides an answer; `parts` must be JSON."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


class ResponseCache:
    """Answers in `<folder>/responses.sqlite`.

    Args:
        folder: made if it does not exist.
        max_bytes: of stored answers; beyond it the oldest ones go until 80 % are left.
    """

    def __init__(self, folder: Path, *, max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        self.folder = Path(folder)
        self._max_bytes = max_bytes
        self._local = threading.local()
        self._lock = threading.Lock()
        self._connections: list[sqlite3.Connection] = []
        self._puts = 0
        self._warned = False
        self._generation = 0

    def get(self, key: str) -> dict[str, Any] | None:
        """Return the value stored under `key`; None if there is none (or the cache stepped aside)."""
        try:
            row = self._connection().execute("SELECT value FROM responses WHERE key = ?", (key,)).fetchone()
            value = None if row is None else json.loads(row[0])
        except (sqlite3.Error, OSError, ValueError) as error:
            self._warn(error)
            return None
        return value if isinstance(value, dict) else None

    def put(self, key: str, value: dict[str, Any]) -> None:
        """Store `value` (a JSON object) under `key`, replacing what was there."""
        text = json.dumps(value)
        try:
            connection = self._connection()
            with connection:
                connection.execute(
                    "INSERT OR REPLACE INTO responses VALUES (?, ?, ?, ?)",
                    (key, text, len(text) + len(key), time.time()),
                )
            self._evict_sometimes(connection)
        except (sqlite3.Error, OSError) as error:
            self._warn(error)

    def _connection(self) -> sqlite3.Connection:
        """Return this thread's connection; SQLite's own locks order threads and processes."""
        if getattr(self._local, "generation", None) == self._generation:
            connection: sqlite3.Connection = self._local.connection
            return connection
        self.folder.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self.folder / FILE_NAME, timeout=BUSY_TIMEOUT_S, check_same_thread=False)
        try:
            _write_ahead(connection)
            # NORMAL survives a killed process; only a power cut may lose the newest answers.
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.executescript(_SCHEMA)
        except BaseException:
            connection.close()
            raise
        with self._lock:
            self._connections.append(connection)
        self._local.connection, self._local.generation = connection, self._generation
        return connection

    def _evict_sometimes(self, connection: sqlite3.Connection) -> None:
        with self._lock:
            self._puts += 1
            due = self._puts % CHECK_EVERY == 1 or self._max_bytes < 1 << 20
        if due:
            self._evict(connection)

    def _evict(self, connection: sqlite3.Connection) -> None:
        """Drop the oldest answers if there are too many bytes."""
        total = connection.execute("SELECT COALESCE(SUM(size), 0) FROM responses").fetchone()[0]
        if total <= self._max_bytes:
            return
        surplus = total - self._max_bytes * EVICT_TO
        with connection:
            connection.execute(
                "DELETE FROM responses WHERE key IN (SELECT key FROM (SELECT key, SUM(size) OVER "
                "(ORDER BY stored_at, key ROWS UNBOUNDED PRECEDING) - size AS before FROM responses) WHERE before < ?)",
                (surplus,),
            )

    def _warn(self, error: Exception) -> None:
        with self._lock:
            if self._warned:
                return
            self._warned = True
        warnings.warn(
            f"The response cache in {self.folder} cannot be used ({type(error).__name__}: {error}). Answers are "
            "computed and not remembered. Free disk space, make the folder writable, or set another cache_dir.",
            CacheWarning,
            stacklevel=3,
        )

    def close(self) -> None:
        """Close all connections; a later use opens new ones."""
        with self._lock:
            connections, self._connections = self._connections, []
            self._generation += 1
        for connection in connections:
            connection.close()

    def __enter__(self) -> "ResponseCache":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        # Python 3.13 warns about connections that are never closed.
        if hasattr(self, "_connections"):
            self.close()


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Switch to a write-ahead log; SQLite does not wait by itself while another process switches a new file too."""
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
