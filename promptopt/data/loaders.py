"""Raw rows -> DataRows: columns mapped to fields, identity by content, duplicates and bad rows counted.

Knows nothing of splits, and nothing of what a field means.
"""

import hashlib
import json
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from pydantic import JsonValue

from promptopt.config.data import DataConfig, Source
from promptopt.data.readers import read_source
from promptopt.data.sources import RawRow
from promptopt.errors import DataError
from promptopt.records import DataRow

_MOST_PROBLEMS_SHOWN = 5


@dataclass(frozen=True)
class LoadedData:
    """The rows of an experiment before they are split.

    Attributes:
        rows: of `source`, in its order, no two with the same id.
        test_rows: of `test_source`, likewise; None where there is none.
        bad_rows: rows left out because they could not be read or lack a field.
        duplicates: rows left out because an earlier row of the same source has the same inputs.
        problems: one line per bad row.
        places: id -> where the row stands in its source, for messages.
    """

    rows: tuple[DataRow, ...]
    test_rows: tuple[DataRow, ...] | None
    bad_rows: int
    duplicates: int = 0
    problems: tuple[str, ...] = ()
    places: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Batch:
    rows: tuple[DataRow, ...]
    problems: tuple[str, ...]
    duplicates: int
    places: dict[str, str]


def load_rows(config: DataConfig) -> LoadedData:
    """Return the rows that `config` describes.

    Of rows with equal inputs the first is kept: the same question with two gold answers would otherwise count twice,
    and could stand in two splits.

    Raises:
        DataError: a file is missing, unreadable or empty; more rows are bad than `bad_rows_allowed`; or none is good.
        ConfigError: a Python factory cannot be imported.
    """

    def map_row(raw: RawRow) -> DataRow:
        return _map_row(raw, config)

    main = _load_source(config.source, config.origin, map_row)
    test = _load_source(config.test_source, config.origin, map_row) if config.test_source else None
    problems = main.problems + (test.problems if test else ())
    if len(problems) > config.bad_rows_allowed:
        shown = "\n".join(f"  {problem}" for problem in problems[:_MOST_PROBLEMS_SHOWN])
        more = f"\n  and {len(problems) - _MOST_PROBLEMS_SHOWN} more" if len(problems) > _MOST_PROBLEMS_SHOWN else ""
        raise DataError(
            f"{len(problems)} bad row(s), {config.bad_rows_allowed} allowed:\n{shown}{more}\n"
            "Mend them, or raise `data.bad_rows_allowed` to leave them out."
        )
    for batch, source in ((main, config.source), (test, config.test_source)):
        if batch is not None and not batch.rows:
            raise DataError(f"The data source {_name_of(source)} has no row that can be used.")
    return LoadedData(
        rows=main.rows,
        test_rows=test.rows if test else None,
        bad_rows=len(problems),
        duplicates=main.duplicates + (test.duplicates if test else 0),
        problems=problems,
        places={**(test.places if test else {}), **main.places},
    )


def load_columns(source: Source) -> LoadedData:
    """Return the rows of `source` with every column as a field, however many are bad: for a look at unknown data.

    Raises:
        DataError: the source is missing, unreadable or empty.
        ConfigError: a Python factory cannot be imported.
    """
    batch = _load_source(source, "", lambda raw: _checked_row(raw, raw.columns or {}, tuple(raw.columns or ()), ""))
    return LoadedData(batch.rows, None, len(batch.problems), batch.duplicates, batch.problems, batch.places)


def row_id(inputs: dict[str, JsonValue]) -> str:
    """Return the identity of a row: first 16 hex digits of the sha256 of its input fields as canonical JSON.

    Strings are brought to Unicode form NFC first, so that the same text typed on two systems is one row.
    """
    return hashlib.sha256(canonical_json(_composed(inputs)).encode("utf-8")).hexdigest()[:16]


def canonical_json(value: JsonValue) -> str:
    """Return `value` as JSON in the one form that hashes are made of: sorted keys, no spaces, no ASCII escapes.

    Raises:
        ValueError: it holds NaN or an infinity, which JSON cannot say.
    """
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _load_source(source: Source, origin: str, map_row: Callable[[RawRow], DataRow]) -> _Batch:
    rows: dict[str, DataRow] = {}
    problems: list[str] = []
    places: dict[str, str] = {}
    duplicates = 0
    for raw in read_source(source, origin):
        try:
            if raw.columns is None:
                raise DataError(f"{raw.place}: {raw.problem}")
            row = map_row(raw)
        except DataError as error:
            problems.append(str(error))
            continue
        if row.id in rows:
            duplicates += 1
        else:
            rows[row.id] = row
            places[row.id] = raw.place
    return _Batch(tuple(rows.values()), tuple(problems), duplicates, places)


def _map_row(raw: RawRow, config: DataConfig) -> DataRow:
    """Return `raw` with its columns mapped to fields.

    Raises:
        DataError: it lacks a column, or holds what JSON cannot; the message starts with its place.
    """
    fields = {name: _pick(raw, column, f"field {name!r}") for name, column in config.fields.items()}
    group = _pick(raw, config.group, "the group") if config.group else ""
    return _checked_row(raw, fields, config.inputs, group)


def _checked_row(raw: RawRow, fields: Mapping[str, object], inputs: Sequence[str], group: object) -> DataRow:
    """Return a row with its identity.

    Raises:
        DataError: a value is none of JSON's; the message names its field.
    """
    try:
        # Validated before it is hashed: a factory may hand over anything at all.
        checked = DataRow.model_validate({"id": "", "fields": fields})
        group_text = group if isinstance(group, str) else canonical_json(group)  # type: ignore[arg-type]
        identity = row_id({name: checked.fields[name] for name in inputs})
        canonical_json([checked.fields, group_text]).encode("utf-8")
    except (ValueError, TypeError, RecursionError) as error:  # wrong types, NaN, lone surrogates
        where = f" of field {name!r}" if (name := _unwritable(fields)) is not None else ""
        raise DataError(f"{raw.place}: a value{where} cannot be written as JSON: {_first(error)}") from error
    return DataRow(id=identity, fields=checked.fields, group=group_text)


def _pick(raw: RawRow, column: str, use: str) -> object:
    """Return the value at `column`: a column of that very name, or else a dotted path into lists and mappings."""
    columns = raw.columns or {}
    if column in columns:
        return columns[column]
    value: object = columns
    for part in column.split("."):
        if isinstance(value, dict) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            raise DataError(f"{raw.place}: column {column!r} (for {use}) is missing; the row has {_names(columns)}")
    return value


def _unwritable(fields: Mapping[str, object]) -> str | None:
    """Return the first field whose value is none of JSON's."""
    for name, value in fields.items():
        try:
            json.dumps({name: value}, ensure_ascii=False, allow_nan=False).encode("utf-8")
        except (ValueError, TypeError, RecursionError):
            return name
    return None


def _names(columns: Iterable[str]) -> str:
    names = sorted(columns)
    return f"{names[:12]}" + (f" and {len(names) - 12} more" if len(names) > 12 else "")


def _composed(value: JsonValue) -> JsonValue:
    if isinstance(value, str):
        return unicodedata.normalize("NFC", value)
    if isinstance(value, list):
        return [_composed(item) for item in value]
    if isinstance(value, dict):
        return {unicodedata.normalize("NFC", key): _composed(item) for key, item in value.items()}
    return value


def _name_of(source: Source | None) -> str:
    return repr(getattr(source, "path", None) or getattr(source, "factory", None))


def _first(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
