"""The documents that are searched: a JSONL file, a folder of documents, or one document. Cuts and ranks nothing."""

from collections.abc import Iterator
from pathlib import Path

from promptopt.config.data import DocumentsSource
from promptopt.data.documents import Document, document_rows
from promptopt.data.sources import RawRow, find_data_file, jsonl_rows, read_text
from promptopt.errors import DataError


def read_documents(path: str, origin: str = "") -> list[Document]:
    """Return the documents in `path`, which is looked up as data files are ($PROMPTOPT_DATA).

    Args:
        path: a .jsonl file with `doc_id` and `text`, perhaps `title`, in every line; else a folder of .txt, .md, .pdf
            and .docx files, or one of these (needs the extra `data`).
        origin: where the documents can be had; said when they are missing.

    Raises:
        DataError: they are missing, one cannot be read, two have the same `doc_id`, or there is none.
        MissingExtraError: the extra `data` is not installed.
    """
    found = find_data_file(path, origin)
    documents = [_document(row) for row in _rows(found)]
    if not documents:
        raise DataError(f"{found} holds no document; retrieval needs at least one.")
    seen: set[str] = set()
    for document in documents:
        if document.doc_id in seen:
            raise DataError(f"{found} holds two documents with the doc_id {document.doc_id!r}; ids must be unique.")
        seen.add(document.doc_id)
    return documents


def _rows(found: Path) -> Iterator[RawRow]:
    if found.suffix == ".jsonl":
        return jsonl_rows(found, read_text(found))
    return document_rows(DocumentsSource(kind="documents", path=str(found)))


def _document(row: RawRow) -> Document:
    columns = row.columns
    if columns is None:
        raise DataError(f"{row.place}: {row.problem}.")
    values = {name: columns.get(name) for name in ("doc_id", "text")}
    for name, value in values.items():
        if not isinstance(value, str):
            raise DataError(
                f"{row.place}: {name!r} is {value!r:.60}; a document needs `doc_id` and `text`, both strings "
                f"(`title` may be left out). The row has {sorted(columns)}."
            )
    doc_id, text = str(values["doc_id"]), str(values["text"])
    title = columns.get("title")
    return Document(doc_id, title if isinstance(title, str) else doc_id, text, row.place, [text])
