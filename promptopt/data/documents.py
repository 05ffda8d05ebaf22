"""Folders of .txt, .md, .pdf and .docx files: one document per file, or one sentence on why it is none."""

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from promptopt.config.data import DocumentsSource
from promptopt.data.document_formats import READERS, UnreadableError
from promptopt.data.document_process import DocumentProcess
from promptopt.data.sources import RawRow, find_data_file
from promptopt.errors import DataError
from promptopt.extras import require

_PACKAGES = {".pdf": "pypdf", ".docx": "docx", ".txt": "charset_normalizer", ".md": "charset_normalizer"}


@dataclass(frozen=True)
class Document:
    """One document.

    Attributes:
        doc_id: path inside its folder, with forward slashes.
        title: as the document states it (.pdf and .docx properties, first Markdown heading), else the file's stem.
        text: all pages, with an empty line between two.
        path: the file.
        pages: text of each page; one where the format has no pages.
    """

    doc_id: str
    title: str
    text: str
    path: str
    pages: list[str]


def document_rows(source: DocumentsSource, origin: str = "") -> Iterator[RawRow]:
    """Yield one row per document of `source`, ordered by `doc_id`; a problem where a document cannot be read.

    Raises:
        DataError: the folder is missing, or holds no document.
        MissingExtraError: the extra `data` is not installed.
    """
    folder = find_data_file(source.path, origin)
    found = find_documents(folder)
    for suffix in sorted({path.suffix.lower() for path in found}):
        require(_PACKAGES[suffix])
    return _rows(folder, found, source)


def _rows(folder: Path, found: list[Path], source: DocumentsSource) -> Iterator[RawRow]:
    root = folder if folder.is_dir() else folder.parent
    with DocumentProcess(source.limits, source.encoding) as process:
        for path in found:
            try:
                yield RawRow(str(path), asdict(_read(path, root, process)))
            except UnreadableError as error:
                yield RawRow(str(path), None, f"the document {error}")


def _read(path: Path, root: Path, process: DocumentProcess) -> Document:
    try:
        inside = path.resolve(strict=True).is_relative_to(root.resolve())
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
        raise UnreadableError("cannot be found: it is a link to nothing") from error
    if not inside:
        raise UnreadableError("is a link that leads out of its folder; copy the file into the folder instead")
    if not path.is_file():
        raise UnreadableError("is no regular file")
    content = process.read(path)
    pages = [page.strip() for page in content.pages]
    title = content.title or path.stem
    text = "\n\n".join(page for page in pages if page)
    return Document(path.relative_to(root).as_posix(), title, text, str(path), pages)


def find_documents(folder: Path) -> list[Path]:
    """Return the documents below `folder` by suffix, in order; or `folder` itself where it is one.

    Hidden files, temporary files of Word (`~$...`) and files of other formats are passed over, and folders that are
    links are not entered.

    Raises:
        DataError: there is none.
    """
    if folder.is_file() and folder.suffix.lower() in READERS:
        return [folder]
    found = []
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        shown = (name for name in names if not name.startswith((".", "~$")))
        found += [Path(place, name) for name in shown if Path(name).suffix.lower() in READERS]
    if not found:
        raise DataError(f"{folder} holds no document. It needs at least one file of {', '.join(sorted(READERS))}.")
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())
