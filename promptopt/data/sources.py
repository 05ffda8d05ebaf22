"""Finds data files; reads JSONL and CSV, calls row factories. Knows nothing of fields, ids or splits."""

import csv
import io
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from promptopt.config.data import PythonSource
from promptopt.config.load import import_object
from promptopt.errors import ConfigError, DataError

DATA_FOLDER_VARIABLE = "PROMPTOPT_DATA"
"""Environment variable: folder in which relative data paths are looked up."""

_LONGEST_CSV_FIELD = 2**31 - 1


@dataclass(frozen=True)
class RawRow:
    """One row as the source has it.

    Attributes:
        place: file and line, or factory and number, for messages.
        columns: column -> value; None where the row cannot be read, which `problem` explains.
    """

    place: str
    columns: dict[str, object] | None
    problem: str = ""


def find_data_file(path: str, origin: str = "") -> Path:
    """Return the first place where `path` exists: as given, in $PROMPTOPT_DATA, in <working directory>/../shared/data.

    Raises:
        DataError: none does; the message names every place, and `origin`.
    """
    given = Path(path).expanduser()
    places = [given]
    if not given.is_absolute():
        folder = os.environ.get(DATA_FOLDER_VARIABLE)
        if folder:
            places.append(Path(folder).expanduser() / given)
        places.append(Path.cwd().parent / "shared" / "data" / given)
    for place in places:
        if place.exists():
            return place
    looked = "\n".join(f"  {place.absolute()}" for place in places)
    variable = os.environ.get(DATA_FOLDER_VARIABLE)
    state = f"is {variable!r}" if variable else "is not set"
    raise DataError(
        f"There is no data file {path!r}. Looked at:\n{looked}\n"
        f"Put it there, or set {DATA_FOLDER_VARIABLE} (which {state}) to the folder that holds it."
        + (f" The data can be had from: {origin}" if origin else "")
    )


def read_text(path: Path) -> str:
    """Return the text of a UTF-8 file, without byte order mark.

    Raises:
        DataError: it cannot be read, or is not UTF-8; the message names the line.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"The data file {path} cannot be read: {error.strerror}.") from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}, line {line}: byte {data[error.start]:#04x} is not UTF-8. Convert the file to UTF-8 first."
        ) from error


def jsonl_rows(path: Path, text: str) -> Iterator[RawRow]:
    """Yield the lines of JSONL `text`, which stands in `path`, as rows; lines that are no JSON object as problems."""
    # Lines end at \n alone: str.splitlines would also cut at U+2028, which JSON strings may hold.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        place = f"{path}, line {number}"
        try:
            value = json.loads(line, parse_constant=_refuse_constant)
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError:
            yield RawRow(place, None, "a string holds half of a surrogate pair, which is no character")
        except (ValueError, RecursionError) as error:
            hint = " The file must hold one JSON object per line." if number == 1 else ""
            yield RawRow(place, None, f"not JSON: {error}.{hint}")
        else:
            if isinstance(value, dict):
                yield RawRow(place, value)
            else:
                yield RawRow(place, None, f"a JSON {type(value).__name__} where one object per line is needed")


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not a JSON value")


def csv_rows(path: Path, text: str) -> Iterator[RawRow]:
    """Return the lines of CSV `text`, which stands in `path`, as rows.

    Raises:
        DataError: it is not CSV, or its header names a column twice.
    """
    limit = csv.field_size_limit(_LONGEST_CSV_FIELD)  # the default of 128 KiB is shorter than some documents
    try:
        rows = list(_csv_lines(path, text))
    finally:
        csv.field_size_limit(limit)
    return iter(rows)


def _csv_lines(path: Path, text: str) -> Iterator[RawRow]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] | None = None
    while True:
        start = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(f"{path}, line {start}: not CSV: {error}.") from error
        if not any(cells):
            continue
        if header is None:
            header = cells
            repeated = sorted({name for name in header if header.count(name) > 1})
            if repeated:
                raise DataError(f"{path}, line {start}: the header names column(s) {repeated} twice.")
        elif len(cells) != len(header):
            yield RawRow(f"{path}, line {start}", None, f"{len(cells)} cells where the header has {len(header)}")
        else:
            yield RawRow(f"{path}, line {start}", dict(zip(header, cells, strict=True)))


def made_rows(source: PythonSource) -> Iterator[RawRow]:
    """Yield the rows that the factory of `source` makes.

    Raises:
        DataError: it fails, or makes no list of rows.
        ConfigError: it cannot be imported, or is no function.
    """
    factory = import_object(source.factory, what="data factory")
    if not callable(factory):
        raise ConfigError(f"The data factory {source.factory!r} is a {type(factory).__name__}; it must be a function.")
    try:
        made = factory(source.n, source.seed)
    except Exception as error:
        raise DataError(f"The data factory {source.factory!r} failed: {type(error).__name__}: {error}.") from error
    if not isinstance(made, list | tuple) or not made:
        got = f"a {type(made).__name__}" if not isinstance(made, list | tuple) else "no rows"
        raise DataError(f"The data factory {source.factory!r} returned {got}; `(n, seed)` must give a list of dicts.")
    for number, row in enumerate(made, start=1):
        place = f"{source.factory}, row {number}"
        if isinstance(row, dict) and all(isinstance(key, str) for key in row):
            yield RawRow(place, row)
        else:
            yield RawRow(place, None, f"a {type(row).__name__} where a dict with string keys is needed")
