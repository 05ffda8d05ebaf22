"""Raw documents for continued pre-training: read from a folder or a JSONL file, and split by content."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from promptopt.errors import DataError
from promptopt.records import DocumentRow

SUFFIXES = (".txt", ".md")


def load_documents(path: Path, text_field: str = "text") -> list[DocumentRow]:
    """Return the documents at `path`, each text once, blank ones left out.

    Args:
        path: a folder, whose .txt and .md files are read to the bottom, or a JSONL file.
        text_field: the field of a JSONL line that holds the text.

    Raises:
        DataError: nothing is there, a file is not UTF-8, or a line has no such text; says which.
    """
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
        texts = [_read(file) for file in files]
    elif path.is_file():
        texts = [
            _text(line, text_field, f"{path}:{number}")
            for number, line in enumerate(_read(path).split("\n"), start=1)
            if line.strip()
        ]
    else:
        raise DataError(
            f"The documents {str(path)!r} do not exist. Give a folder of .txt and .md files, or a JSONL file."
        )
    rows = {_id(text): DocumentRow(id=_id(text), text=text) for text in texts if text.strip()}
    if not rows:
        raise DataError(
            f"{str(path)!r} holds no text. It needs .txt or .md files, or lines with a field {text_field!r}."
        )
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


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}. Convert it.") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error


def _text(line: str, field: str, place: str) -> str:
    try:
        value = json.loads(line)
    except ValueError as error:
        raise DataError(f"{place}: no JSON: {error}.") from error
    text = value.get(field) if isinstance(value, dict) else None
    if not isinstance(text, str):
        found = sorted(value) if isinstance(value, dict) else type(value).__name__
        raise DataError(f"{place}: no text in field {field!r}; found {found}. Name the field as text_field.")
    return text


def _id(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", errors="surrogatepass")).hexdigest()[:16]
