"""Which reader reads which kind of source, and which files decide what it reads."""

from collections.abc import Iterator
from pathlib import Path

from promptopt.config.data import (
    CsvSource,
    DocumentsSource,
    FlowCasesSource,
    HuggingFaceSource,
    JsonlSource,
    ParquetSource,
    PythonSource,
    Source,
)
from promptopt.data.document_formats import READERS
from promptopt.data.documents import document_rows, find_documents
from promptopt.data.flow_cases import flow_case_rows, reference_files
from promptopt.data.sources import RawRow, csv_rows, find_data_file, jsonl_rows, made_rows, read_text
from promptopt.data.tables import hugging_face_rows, parquet_rows
from promptopt.errors import DataError


def read_source(source: Source, origin: str = "") -> Iterator[RawRow]:
    """Yield the rows of `source` in their order, unreadable ones included.

    Args:
        source: a file, a folder, a data set of the hub, or a factory of rows.
        origin: where the data can be had; said when the file is missing.

    Raises:
        DataError: the source is missing, cannot be read as a whole, or is empty; or the factory makes no rows.
        ConfigError: the factory cannot be imported or called.
        MissingExtraError: the format needs the extra `data`, which is not installed.
    """
    match source:
        case JsonlSource() | CsvSource():
            return _text_rows(source, origin)
        case PythonSource():
            return made_rows(source)
        case ParquetSource():
            return parquet_rows(source, origin)
        case HuggingFaceSource():
            return hugging_face_rows(source, origin)
        case FlowCasesSource():
            return flow_case_rows(source, origin)
        case DocumentsSource():
            return document_rows(source, origin)


def source_for(path: Path, split: str | None = None) -> Source:
    """Return the source that the file or folder `path` is, by its suffix or by what it holds.

    Args:
        split: of a data set on disk that has several.

    Raises:
        DataError: its format is not known.
    """
    place, suffix = str(path), path.suffix.lower()
    if path.is_dir():
        is_data_set = any((path / name).is_file() for name in ("dataset_info.json", "dataset_dict.json"))
        if is_data_set:
            return HuggingFaceSource(kind="huggingface", path=place, split=split)
        return DocumentsSource(kind="documents", path=place)
    if suffix in (".jsonl", ".json"):
        return JsonlSource(kind="jsonl", path=place)
    if suffix == ".csv":
        return CsvSource(kind="csv", path=place)
    if suffix == ".parquet":
        return ParquetSource(kind="parquet", path=place)
    if suffix in READERS:
        return DocumentsSource(kind="documents", path=place)
    known = ", ".join((".jsonl", ".csv", ".parquet", *READERS))
    raise DataError(f"{path} is in no format that is known by its suffix ({known}), and no folder.")


def source_files(source: Source, origin: str = "") -> list[Path]:
    """Return the files whose content decides the rows of `source`, in order; none for a factory or the hub.

    Raises:
        DataError: there is no such file or folder.
    """
    if isinstance(source, PythonSource) or source.path is None:
        return []
    path = find_data_file(source.path, origin)
    if isinstance(source, DocumentsSource):
        return [file for file in find_documents(path) if file.is_file()]
    if isinstance(source, FlowCasesSource):
        return [path, *reference_files(path)]
    return [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())


def _text_rows(source: JsonlSource | CsvSource, origin: str) -> Iterator[RawRow]:
    path = find_data_file(source.path, origin)
    text = read_text(path)
    if not text.strip():
        raise DataError(f"The data file {path} is empty. It needs at least one row.")
    return jsonl_rows(path, text) if isinstance(source, JsonlSource) else csv_rows(path, text)
