"""SHA-256 of model files, computed once per file and remembered by path, size and modification time."""

import hashlib
from pathlib import Path

from promptopt.user_cache import read_note, user_cache_dir, write_note

CHUNK_BYTES = 8 << 20


def file_sha256(path: Path) -> str:
    """Return the hex SHA-256 of a file's content (read in full only when it is new or has changed)."""
    stat = path.stat()
    identity = f"{path.resolve()}\n{stat.st_size}\n{stat.st_mtime_ns}"
    name = hashlib.sha256(identity.encode()).hexdigest()[:32]
    note_path = user_cache_dir() / "fingerprints" / f"{name}.json"
    note = read_note(note_path)
    if note is not None and isinstance(note.get("sha256"), str):
        return str(note["sha256"])
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            digest.update(chunk)
    write_note(note_path, {"sha256": digest.hexdigest(), "path": str(path)})
    return digest.hexdigest()
