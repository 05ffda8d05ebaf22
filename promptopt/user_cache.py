"""Where promptopt keeps what it may lose: answers, probe results, file hashes. Knows nothing about their contents."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any


def user_cache_dir() -> Path:
    """Return promptopt's folder in the user's cache (`$XDG_CACHE_HOME` or `~/.cache`); it may not exist yet."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification says that a relative path is to be ignored.
    root = Path(base) if base and Path(base).is_absolute() else Path("~/.cache").expanduser()
    return root / "promptopt"


def read_note(path: Path) -> dict[str, Any] | None:
    """Read a small JSON object; None if it is missing, unreadable or damaged (then it is simply made again)."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def write_note(path: Path, note: dict[str, Any]) -> None:
    """Write a small JSON object atomically. A read-only or full disk is ignored: notes only save time."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as stream:
                json.dump(note, stream)
            os.replace(temporary, path)
        except OSError:
            Path(temporary).unlink(missing_ok=True)
    except OSError:
        return
