"""Raw texts for continued pre-training: from a folder of documents or a JSONL file, each once, and split by content."""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from promptopt.config.data import DocumentsSource
from promptopt.data.document_formats import READERS
from promptopt.data.documents import document_rows
from promptopt.data.sources import RawRow, jsonl_rows, read_text
from promptopt.errors import DataError
from promptopt.records import DocumentRow


def load_documents(path: Path, text_field: str = "text") -> list[DocumentRow]:
    """Return the documents at `path`, each text once; blank texts of a JSONL file are left out.

    Args:
        path: a folder, whose .txt, .md, .pdf and .docx files are read to the bottom, one such file, or a JSONL file.
        text_field: the field of a JSONL line that holds the text.

    Raises:
        DataError: nothing is there, a document cannot be read, or a line has no such text; says which.
        MissingExtraError: documents need the extra `data`, which is not installed.
    """
    texts = list(_lines(path, text_field) if _is_jsonl(path) else _documents(path))
    rows = {_id(text): DocumentRow(id=_id(text), text=text) for text in texts if text.strip()}
    if not rows:
        raise DataError(f"{path} holds no text. It needs lines with a field {text_field!r} that is not blank.")
    return list(rows.values())


def split_documents(documents: Sequence[DocumentRow], val_share: float) -> tuple[list[DocumentRow], list[DocumentRow]]:
    """Return (train, val): the share of documents whose hashes come first validates, one document at least.

    Raises:
        DataError: there are fewer than two documents.
    """
    if len(documents) < 2:
        raise DataError(
            f"There is {len(documents)} document; at least 2 are needed, one of them to validate with. Split it at its "
            "chapters, one file each."
        )
    count = min(len(documents) - 1, max(1, round(val_share * len(documents))))
    chosen = {row.id for row in sorted(documents, key=lambda row: row.id)[:count]}
    return [row for row in documents if row.id not in chosen], [row for row in documents if row.id in chosen]


def _is_jsonl(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() not in READERS


def _documents(path: Path) -> Iterator[str]:
    for row in document_rows(DocumentsSource(kind="documents", path=str(path))):
        if row.columns is None:
            raise DataError(f"{row.place}: {row.problem}. Repair it, or take it out of the folder.")
        yield str(row.columns["text"])


def _lines(path: Path, field: str) -> Iterator[str]:
    return (_text(row, field) for row in jsonl_rows(path, read_text(path)))


def _text(row: RawRow, field: str) -> str:
    if row.columns is None:
        raise DataError(f"{row.place}: {row.problem.removesuffix('.')}.")
    text = row.columns.get(field)
    if not isinstance(text, str):
        raise DataError(
            f"{row.place}: no text in field {field!r}; found {sorted(row.columns)}. Name the field as text_field."
        )
    return text


def _id(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
