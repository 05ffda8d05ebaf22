"""What a data set looks like before anything runs on it: fields, languages, duplicates, groups, splits, leaks."""

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence

from promptopt.config.data import DataConfig, Source
from promptopt.data.field_statistics import FieldReport, TokenCounter, describe_field
from promptopt.data.languages import Language, count_languages
from promptopt.data.loaders import LoadedData, canonical_json, load_columns, load_rows
from promptopt.data.near_duplicates import NearDuplicates
from promptopt.data.split_leaks import LAST_FIRST, find_leaks, input_text
from promptopt.data.splits import named_splits, split_rows
from promptopt.errors import DataError
from promptopt.records import DataRow, Record, SplitName

_EXAMPLES = 5
_LONG_VALUE = 80
"""Characters from which it says something that two rows have the same value: documents, not labels."""


class AlikeRows(Record):
    """Two rows that are nearly equal, by where they stand, and the Jaccard similarity of their shingles."""

    first: str
    second: str
    similarity: float


class SharedValues(Record):
    """Rows of `split` whose long text in `field` also stands in `other`, letter for letter."""

    field: str
    split: SplitName
    other: SplitName
    rows: int


class SplitReport(Record):
    """The splits as a run would make them.

    Attributes:
        near_duplicates: "train ~ test" -> rows of train that nearly equal one of test.
        dropped: near-duplicates that the config leaves out.
        shared: long values on both sides of a cut; a group on that field would keep them together.
    """

    rows: dict[SplitName, int]
    left_over: int
    overlapping: int
    dropped: int
    near_duplicates: dict[str, int]
    examples: tuple[AlikeRows, ...]
    shared: tuple[SharedValues, ...]


class GroupReport(Record):
    """Groups, and how many rows the largest and the median one have."""

    count: int
    largest: int
    median_rows: float


class Inspection(Record):
    """What a data set looks like.

    Attributes:
        rows: that can be used, of all sources, each once.
        problems: the first bad rows.
        duplicates: rows with the same inputs as an earlier one, left out.
        near_duplicates: rows that nearly equal an earlier one, still in.
        languages: language of the inputs -> rows.
        tokenizer: what tokens were counted with; empty: they were not.
        splits: None without a config; split_problem: why a run could not split the rows.
    """

    source: str
    rows: int
    bad_rows: int
    problems: tuple[str, ...]
    duplicates: int
    near_duplicates: int
    near_duplicate_examples: tuple[AlikeRows, ...]
    languages: dict[Language, int]
    fields: tuple[FieldReport, ...]
    tokenizer: str = ""
    groups: GroupReport | None = None
    splits: SplitReport | None = None
    split_problem: str = ""


def inspect_data(config: DataConfig, count_tokens: TokenCounter | None = None) -> Inspection:
    """Return what the data of an experiment looks like. Bad rows, however many, and leaks are findings, not errors.

    Raises:
        DataError: a source is missing, unreadable as a whole, or has no row that can be used.
        ConfigError: a Python factory cannot be imported.
    """
    lenient = config.model_copy(update={"bad_rows_allowed": 1 << 62})
    loaded = load_rows(lenient)
    found = _inspect(loaded, _name(config.source), config.inputs, config.near_duplicate_threshold, count_tokens)
    try:
        splits = _splits(loaded, config)
    except DataError as error:
        return found.model_copy(update={"groups": _groups(loaded), "split_problem": str(error)})
    return found.model_copy(update={"groups": _groups(loaded), "splits": splits})


def inspect_source(source: Source, threshold: float = 0.8, count_tokens: TokenCounter | None = None) -> Inspection:
    """Return what a file or folder looks like, every column a field, without splits.

    Raises:
        DataError: it is missing, unreadable as a whole, or has no row that can be used.
    """
    loaded = load_columns(source)
    if not loaded.rows:
        first = f" The first problem: {loaded.problems[0]}" if loaded.problems else ""
        raise DataError(f"{_name(source)} has no row that can be used.{first}")
    # Paths and titles of documents would make different texts out of equal ones.
    inputs = ("text",) if source.kind == "documents" else tuple(_columns(loaded.rows))
    return _inspect(loaded, _name(source), inputs, threshold, count_tokens)


def _inspect(
    loaded: LoadedData, source: str, inputs: Sequence[str], threshold: float, count_tokens: TokenCounter | None
) -> Inspection:
    test = {row.id: row for row in loaded.test_rows or ()}
    rows = [row for row in loaded.rows if row.id not in test] + list(test.values())
    alike, examples = _alike_rows(rows, inputs, loaded.places, threshold)
    values = {name: [row.fields.get(name) for row in rows] for name in _columns(rows)}
    return Inspection(
        source=source,
        rows=len(rows),
        bad_rows=loaded.bad_rows,
        problems=loaded.problems[:_EXAMPLES],
        duplicates=loaded.duplicates,
        near_duplicates=alike,
        near_duplicate_examples=tuple(examples),
        languages=count_languages(input_text(row, inputs) for row in rows),
        fields=tuple(describe_field(name, column, count_tokens) for name, column in values.items()),
    )


def _alike_rows(
    rows: Sequence[DataRow], inputs: Sequence[str], places: Mapping[str, str], threshold: float
) -> tuple[int, list[AlikeRows]]:
    """Return how many rows nearly equal an earlier one, and the first of them."""
    index = NearDuplicates(threshold)
    count = 0
    examples: list[AlikeRows] = []
    for row in rows:
        text = input_text(row, inputs)
        found = index.find(text)
        if found is None:  # one of each kind is enough to find the others, and keeps the index small
            index.add(row.id, text)
            continue
        count += 1
        if len(examples) < _EXAMPLES:
            examples.append(AlikeRows(first=places[found[0]], second=places[row.id], similarity=found[1]))
    return count, examples


def _splits(loaded: LoadedData, config: DataConfig) -> SplitReport:
    splits = split_rows(loaded, config)
    named = named_splits(splits)
    off = config.near_duplicates == "off"
    leaks = [] if off else find_leaks(named, config.inputs, config.near_duplicate_threshold)
    places = loaded.places
    return SplitReport(
        rows={name: len(rows) for name, rows in named.items()},
        left_over=splits.left_over,
        overlapping=splits.overlapping,
        dropped=splits.near_duplicates,
        near_duplicates=dict(Counter(f"{leak.split} ~ {leak.other_split}" for leak in leaks)),
        examples=tuple(
            AlikeRows(first=places[leak.row_id], second=places[leak.other_id], similarity=leak.similarity)
            for leak in leaks[:_EXAMPLES]
        ),
        shared=tuple(_shared_values(named, config.inputs)),
    )


def _shared_values(named: Mapping[SplitName, Sequence[DataRow]], inputs: Sequence[str]) -> list[SharedValues]:
    shared = []
    for name in inputs:
        values = {split: [_long_text(row, name) for row in rows] for split, rows in named.items()}
        for position, other in enumerate(LAST_FIRST):
            known = set(values[other]) - {""}
            for split in LAST_FIRST[position + 1 :]:
                if count := sum(value in known for value in values[split]):
                    shared.append(SharedValues(field=name, split=split, other=other, rows=count))
    return shared


def _long_text(row: DataRow, name: str) -> str:
    value = row.fields[name]
    text = value if isinstance(value, str) else canonical_json(value)
    return text if len(text) >= _LONG_VALUE else ""


def _groups(loaded: LoadedData) -> GroupReport | None:
    sizes = Counter(row.group for row in (*loaded.rows, *(loaded.test_rows or ())) if row.group)
    if not sizes:
        return None
    return GroupReport(count=len(sizes), largest=max(sizes.values()), median_rows=statistics.median(sizes.values()))


def _columns(rows: Sequence[DataRow]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row.fields))


def _name(source: Source) -> str:
    values = source.model_dump()
    return str(values.get("path") or values.get("name") or values.get("factory"))
