""".txt, .md, .pdf and .docx -> title and pages. Runs in a process that may die of it (`document_child`).

Imports nothing of promptopt but the text decoder: the process must start fast.
"""

import io
import re
import stat
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from promptopt.data.text_encoding import EncodingError, decode_text

MIB = 1 << 20
_HIGHEST_RATIO = 200
"""A part of a .docx that unpacks to more times its size is a bomb; real ones reach about 50."""
_MOST_PARTS = 10_000
_DOCTYPE = tuple(
    word.encode(encoding) for word in ("<!DOCTYPE", "<!ENTITY") for encoding in ("utf-8", "utf-16-le", "utf-16-be")
)
_HEADING = re.compile(r"^#{1,2}[ \t]+(\S.*?)[ \t#]*$", re.MULTILINE)
_LONGEST_TITLE = 300


class UnreadableError(ValueError):
    """A document cannot be read; the message goes on after "the document"."""


@dataclass(frozen=True)
class Limits:
    """What one document may take; the fields are those of `config.data.DocumentLimits`."""

    file_mib: int
    unpacked_mib: int
    pages: int
    characters: int


@dataclass(frozen=True)
class Content:
    """What stands in a document. `title` is empty where the document states none."""

    title: str
    pages: list[str]


def read_document(path: Path, limits: Limits, encoding: str) -> Content:
    """Return what stands in the file `path`, whose suffix says its format.

    Raises:
        UnreadableError: it is damaged, encrypted, binary, empty, or beyond a limit.
        MemoryError, RecursionError, OSError: as they come.
    """
    data = _read_bytes(path, limits)
    content = READERS[path.suffix.lower()](data, limits, encoding)
    if not any(page.strip() for page in content.pages):
        raise UnreadableError("has no text (a scan needs OCR first)" if path.suffix.lower() == ".pdf" else "is empty")
    title = " ".join(content.title.split())[:_LONGEST_TITLE]
    return Content(_mended(title), [_mended(page) for page in content.pages])


def _read_bytes(path: Path, limits: Limits) -> bytes:
    with path.open("rb") as file:
        if not stat.S_ISREG(path.stat().st_mode):
            raise UnreadableError("is no regular file")
        data = file.read(limits.file_mib * MIB + 1)
    if len(data) > limits.file_mib * MIB:
        raise UnreadableError(f"is larger than {limits.file_mib} MiB (limits.file_mib)")
    if not data:
        raise UnreadableError("is empty")
    return data


def _read_text(data: bytes, limits: Limits, encoding: str) -> Content:
    try:
        text = decode_text(data, encoding)
    except EncodingError as error:
        raise UnreadableError(str(error)) from error
    return Content("", list(_counted([text], limits)))


def _read_markdown(data: bytes, limits: Limits, encoding: str) -> Content:
    content = _read_text(data, limits, encoding)
    heading = _HEADING.search(content.pages[0])
    return Content(heading.group(1) if heading else "", content.pages)


def _read_pdf(data: bytes, limits: Limits, _encoding: str) -> Content:
    import pypdf
    from pypdf.errors import DependencyError

    try:
        reader = pypdf.PdfReader(io.BytesIO(data))
        # Many a PDF is encrypted with an empty password, only to forbid printing.
        if reader.is_encrypted and not reader.decrypt(""):
            raise UnreadableError("is encrypted; save it without a password first")
        count = len(reader.pages)
        if count > limits.pages:
            raise UnreadableError(f"has {count} pages, {limits.pages} are allowed (limits.pages)")
        pages = list(_counted((page.extract_text() for page in reader.pages), limits))
        title = reader.metadata.title if reader.metadata else None
    except DependencyError as error:
        raise UnreadableError("is encrypted with AES; save it without a password first") from error
    except (UnreadableError, MemoryError, RecursionError):
        raise
    except Exception as error:  # pypdf lets errors of all kinds through where a file is damaged
        raise UnreadableError(f"is a damaged PDF: {_named(error)}") from error
    return Content(title if isinstance(title, str) else "", pages)


def _read_docx(data: bytes, limits: Limits, _encoding: str) -> Content:
    import docx

    _check_archive(data, limits)
    try:
        document = docx.Document(io.BytesIO(data))
        text = "\n".join(_counted(_blocks(document), limits))
        title = document.core_properties.title
    except (UnreadableError, MemoryError, RecursionError):
        raise
    except Exception as error:  # python-docx lets errors of all kinds through where a part is missing or odd
        raise UnreadableError(f"is a damaged .docx: {_named(error)}") from error
    return Content(title or "", [text])


def _check_archive(data: bytes, limits: Limits) -> None:
    """Pass if the archive unpacks to little enough, and no part of it declares XML entities.

    The sizes an archive declares are bounds: `zipfile` unpacks no entry beyond its declared size.
    """
    if data.startswith(b"\xd0\xcf\x11\xe0"):
        raise UnreadableError("is encrypted, or an old .doc; save it as .docx without a password first")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            parts = archive.infolist()
            unpacked = sum(part.file_size for part in parts)
            if len(parts) > _MOST_PARTS:
                raise UnreadableError(f"has {len(parts)} parts, {_MOST_PARTS} are allowed")
            if unpacked > limits.unpacked_mib * MIB:
                raise UnreadableError(
                    f"unpacks to {unpacked // MIB} MiB, {limits.unpacked_mib} are allowed (limits.unpacked_mib)"
                )
            for part in parts:
                if part.file_size > MIB and part.file_size > _HIGHEST_RATIO * part.compress_size:
                    raise UnreadableError(
                        f"is a zip bomb: {part.filename} unpacks to over {_HIGHEST_RATIO} times its size"
                    )
                if part.filename.endswith((".xml", ".rels")) and any(word in archive.read(part) for word in _DOCTYPE):
                    raise UnreadableError(f"declares XML entities in {part.filename}, which no word processor does")
    except (UnreadableError, MemoryError):
        raise
    except Exception as error:  # zipfile lets errors of struct, zlib and codecs through
        raise UnreadableError(f"is a damaged .docx: {_named(error)}") from error


def _blocks(container: Any) -> Iterator[str]:
    """Yield paragraphs, and rows of tables with tabs between cells, in the order of the document."""
    for block in container.iter_inner_content():
        if hasattr(block, "rows"):
            for row in block.rows:
                cells = {id(cell._tc): cell for cell in row.cells}  # a merged cell comes once per column it covers
                yield "\t".join("\n".join(_blocks(cell)) for cell in cells.values())
        else:
            yield block.text


def _counted(texts: Iterator[str] | list[str], limits: Limits) -> Iterator[str]:
    total = 0
    for text in texts:
        total += len(text)
        if total > limits.characters:
            raise UnreadableError(f"has more than {limits.characters} characters (limits.characters)")
        yield text


def _mended(text: str) -> str:
    """Return `text` without NUL, and with U+FFFD for halves of surrogate pairs, which no file could hold."""
    return text.replace("\0", "").encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


Reader = Callable[[bytes, Limits, str], Content]
READERS: dict[str, Reader] = {".txt": _read_text, ".md": _read_markdown, ".pdf": _read_pdf, ".docx": _read_docx}
"""Suffix, in lower case -> its reader."""
