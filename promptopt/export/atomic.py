"""Files and folders that exist either whole or not at all, and the record of a finished GGUF.

Everything is written beside its destination under a temporary name and renamed at the end, so that a crash, Ctrl-C or a
full disk never leaves half a model where a whole one is expected. Knows nothing about what is written.
"""

import glob
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from promptopt.errors import ExportError
from promptopt.records import GgufModel, Quantization

_HASH_BLOCK = 1 << 20


@contextmanager
def atomic_file(out: Path) -> Iterator[Path]:
    """Yield a temporary path beside `out`; what was written there becomes `out` when the block ends well.

    Raises:
        ExportError: writing failed, e.g. because the disk is full; nothing is left behind and an older `out` stays.
    """
    temporary = _temporary(out)
    try:
        yield temporary
        with temporary.open("rb+") as stream:
            # Some file systems report a full disk only here.
            os.fsync(stream.fileno())
        os.replace(temporary, out)
    except OSError as error:
        raise write_error(out, error) from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_dir(out: Path) -> Iterator[Path]:
    """Yield an empty temporary folder beside `out`; it becomes `out`, replacing an older one, when the block ends well.

    Raises:
        ExportError: writing failed; nothing is left behind and an older `out` stays.
    """
    temporary = _temporary(out)
    try:
        temporary.mkdir()
        yield temporary
        # A folder cannot be renamed onto one that holds files, so the old one steps aside first. Killed in between,
        # neither is there, and the next run makes it again.
        old = _temporary(out.with_name(out.name + ".old"))
        if out.exists():
            os.replace(out, old)
        os.replace(temporary, out)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise write_error(out, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_error(out: Path, error: Exception) -> ExportError:
    """Return the error that says `out` could not be written, and how much room its disk has."""
    folder = next(parent for parent in out.absolute().parents if parent.exists())
    free = shutil.disk_usage(folder).free
    return ExportError(
        f"Cannot write {out}: {error}. The disk has {free / 1e6:.0f} MB left; free some space or choose another "
        "folder, then run the same command again. Nothing was left half-written."
    )


def gguf_record(path: Path, quantization: Quantization) -> GgufModel:
    """Return the record of the finished GGUF at `path`, with its SHA-256."""
    return GgufModel(path=str(path), quantization=quantization, sha256=sha256_of(path), size_bytes=path.stat().st_size)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hex digits."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_HASH_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _temporary(out: Path) -> Path:
    """Return this process's temporary path for `out`, after removing those that killed processes left behind."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        for stale in out.parent.glob(f".{glob.escape(out.name)}.*.tmp"):
            owner = stale.name.removesuffix(".tmp").rpartition(".")[2]
            if owner.isdigit() and (int(owner) == os.getpid() or not _is_running(int(owner))):
                shutil.rmtree(stale) if stale.is_dir() else stale.unlink()
    except OSError as error:
        raise write_error(out, error) from error
    return out.with_name(f".{out.name}.{os.getpid()}.tmp")


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
