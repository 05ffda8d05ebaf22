"""Where llama.cpp's own converter lies, and how it gets there.

An installed llama-cpp-python has the engine but not the converter; its source package has both. `fetch_converter` takes
the converter out of that package once, into the user's cache; a conversion only ever looks there.
"""

import hashlib
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path, PurePosixPath

from promptopt.errors import ExportError
from promptopt.export.atomic import atomic_dir
from promptopt.user_cache import user_cache_dir

VERSION = "0.3.36"
"""Of llama-cpp-python: the version the engine is tested with, whose source carries llama.cpp of the same day."""
PACKAGE_SHA256 = "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"
TREE_SHA256 = "ddec5767e7856246b1fc1f22346f864b8031481ee76321d97f142260f0315c11"
"""Of what is kept of it, see `tree_digest`."""
ENVIRONMENT = "PROMPTOPT_LLAMA_CPP"
"""Environment variable that names a llama.cpp checkout, whose converter is then taken as it is."""
FETCH_LINE = "promptopt doctor --fetch-converter"

_INSIDE = PurePosixPath("vendor/llama.cpp")
_KEPT = ("conversion", "gguf-py/gguf", "LICENSE")


def find_converter() -> Path:
    """Return the folder that holds llama.cpp's `conversion` and `gguf-py`.

    Raises:
        ExportError: it was never fetched, is damaged, or `PROMPTOPT_LLAMA_CPP` names no checkout.
    """
    named = os.environ.get(ENVIRONMENT)
    if named:
        if not (Path(named) / "conversion" / "base.py").is_file():
            raise ExportError(
                f"{ENVIRONMENT} is {named!r}, which holds no conversion/base.py; name a llama.cpp checkout of 2026, or "
                f"unset it and run `{FETCH_LINE}`."
            )
        return Path(named).absolute()
    folder = _cached()
    if not folder.is_dir():
        raise ExportError(
            f"llama.cpp's converter is not in {folder}. Run `{FETCH_LINE}` once (it downloads the source package of "
            f"llama-cpp-python {VERSION}, 77 MB, and keeps 2), or name a llama.cpp checkout in {ENVIRONMENT}."
        )
    if tree_digest(folder) != TREE_SHA256:
        raise ExportError(
            f"llama.cpp's converter in {folder} is not what llama-cpp-python {VERSION} carries. Delete that folder and "
            f"run `{FETCH_LINE}`."
        )
    return folder


def fetch_converter() -> Path:
    """Download llama-cpp-python's source package with pip, check it, and keep the converter; done already, do nothing.

    Returns:
        The folder that `find_converter` will return.

    Raises:
        ExportError: no network, a package of another content, or a full disk.
    """
    folder = _cached()
    if folder.is_dir() and tree_digest(folder) == TREE_SHA256:
        return folder
    with tempfile.TemporaryDirectory() as temporary, atomic_dir(folder) as out:
        _unpack(_download(Path(temporary)), out)
        if tree_digest(out) != TREE_SHA256:
            raise ExportError(
                f"The converter in llama-cpp-python {VERSION} is not the one that was tested (SHA-256 of the tree "
                f"{tree_digest(out)}). Install the promptopt that belongs to it."
            )
    return folder


def tree_digest(folder: Path) -> str:
    """Return one SHA-256 over names and contents of all files in `folder` but compiled ones."""
    digest = hashlib.sha256()
    for file in sorted(file for file in folder.rglob("*") if file.is_file() and file.suffix != ".pyc"):
        content = hashlib.sha256(file.read_bytes()).hexdigest()
        digest.update(f"{file.relative_to(folder).as_posix()} {content}\n".encode())
    return digest.hexdigest()


def _cached() -> Path:
    return user_cache_dir() / "converter" / f"llama-cpp-python-{VERSION}"


def _download(folder: Path) -> Path:
    """Let pip fetch the source package and check its SHA-256; pip's own indexes, mirrors and cache are used."""
    requirement = folder / "requirements.txt"
    requirement.write_text(f"llama-cpp-python=={VERSION} --hash=sha256:{PACKAGE_SHA256}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
    command += ["--no-binary", "llama-cpp-python", "--dest", str(folder), "--requirement", str(requirement)]
    child = subprocess.run(command, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL)
    found = sorted(folder.glob("*.tar.gz"))
    if child.returncode != 0 or not found:
        said = [line.strip() for line in child.stderr.splitlines() if "error" in line.lower()] or ["(nothing)"]
        raise ExportError(
            f"pip could not download the source package of llama-cpp-python {VERSION}. It said: "
            f"{' | '.join(said[-3:])}. Check the network and `pip config list`, or name a llama.cpp checkout in "
            f"{ENVIRONMENT}."
        )
    return found[0]


def _unpack(package: Path, out: Path) -> None:
    """Copy the converter's files, and nothing else, from the source package to `out`."""
    with tarfile.open(package) as archive:
        for member in archive:
            inside = PurePosixPath(*PurePosixPath(member.name).parts[1:])
            if not member.isfile() or not inside.is_relative_to(_INSIDE) or ".." in inside.parts:
                continue
            name = inside.relative_to(_INSIDE)
            stream = archive.extractfile(member) if any(name.is_relative_to(kept) for kept in _KEPT) else None
            if stream is not None:
                target = out / name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(stream.read())
