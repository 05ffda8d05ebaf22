"""Parquet files, and Hugging Face data sets on disk or of the hub: tables of Arrow, batch by batch, as plain rows."""

import datetime
import importlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from promptopt.config.data import HuggingFaceSource, ParquetSource
from promptopt.data.sources import RawRow, find_data_file
from promptopt.errors import DataError
from promptopt.extras import require

TOKEN_VARIABLE = "HF_TOKEN"
"""Environment variable: the token for private data sets of the hub."""

_BATCH = 1000


def parquet_rows(source: ParquetSource, origin: str = "") -> Iterator[RawRow]:
    """Yield the rows of a Parquet file.

    Raises:
        DataError: the file is missing, damaged or empty.
        MissingExtraError: the extra `data` is not installed.
    """
    path = find_data_file(source.path, origin)
    require("pyarrow")
    parquet = importlib.import_module("pyarrow.parquet")
    try:
        with parquet.ParquetFile(path) as file:
            if not file.metadata.num_rows:
                raise DataError(f"The data file {path} is empty. It needs at least one row.")
            yield from _rows((batch.to_pylist() for batch in file.iter_batches(_BATCH)), str(path))
    except (OSError, ValueError, MemoryError, NotImplementedError) as error:  # pyarrow's errors are among these
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} cannot be read as Parquet: {_first(error)}") from error


def hugging_face_rows(source: HuggingFaceSource, origin: str = "") -> Iterator[RawRow]:
    """Yield the rows of a data set in the format of Hugging Face `datasets`.

    Raises:
        DataError: it is missing, damaged or empty, cannot be reached, or has splits and none is named.
        MissingExtraError: the extra `data` is not installed.
    """
    datasets = require("datasets")
    place = str(find_data_file(source.path, origin)) if source.path is not None else f"hub data set {source.name}"
    loaded = _from_disk(datasets, Path(place)) if source.path is not None else _from_hub(datasets, source)
    if isinstance(loaded, dict):
        splits = sorted(map(str, loaded))
        if source.split not in splits:
            said = f"split {source.split!r}, which is not among" if source.split else "no `split`; choose one of"
            raise DataError(f"{place}: the source names {said} {splits}.")
        loaded = loaded[source.split]
    elif source.split is not None and source.path is not None:
        raise DataError(f"{place} has no splits, but the source names {source.split!r}. Leave `split` out.")
    if not len(loaded):
        raise DataError(f"{place} is empty. It needs at least one row.")
    # As Arrow tables: nothing is decoded, so no package for images or sound is needed, and no code of theirs runs.
    tables = loaded.with_format("arrow").iter(_BATCH)
    yield from _rows((table.to_pylist() for table in tables), place)


def _from_disk(datasets: Any, folder: Path) -> Any:
    try:
        return datasets.load_from_disk(str(folder))
    except Exception as error:  # a damaged folder shows itself in many ways
        raise DataError(
            f"{folder} cannot be read as a data set: {_first(error)} It must be a folder that `save_to_disk` wrote."
        ) from error


def _from_hub(datasets: Any, source: HuggingFaceSource) -> Any:
    token = os.environ.get(TOKEN_VARIABLE)
    try:
        # False, not None: a token that was once stored on this machine must not be sent without being asked for.
        return datasets.load_dataset(
            source.name, source.config, split=source.split, revision=source.revision, token=token or False
        )
    except Exception as error:  # of `datasets`, of the hub's client, of HTTP, of files
        said = _first(error).replace(token, "***") if token else _first(error)
        raise DataError(
            f"The data set {source.name!r} cannot be loaded from the Hugging Face hub: {said} Check its name, "
            f"`config`, `split` and `revision`, and the network; a private one needs {TOKEN_VARIABLE}. Without "
            "network, save it on another machine with `save_to_disk` and give the folder as `path`."
        ) from error


def _rows(batches: Iterable[list[dict[str, object]]], place: str) -> Iterator[RawRow]:
    number = 0
    for batch in batches:
        for columns in batch:
            number += 1
            yield RawRow(f"{place}, row {number}", {name: _plain(value) for name, value in columns.items()})


def _plain(value: object) -> object:
    """Return dates and times as ISO 8601, in lists and mappings too; the rest as it is."""
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value


def _first(error: Exception) -> str:
    text = f"{type(error).__name__}: {' '.join(str(error).split())}"
    return text[:300] + ("..." if len(text) > 300 else "" if text.endswith(".") else ".")
