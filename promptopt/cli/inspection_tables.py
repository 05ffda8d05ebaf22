"""Draws what `promptopt data inspect` found as lines and tables (rich). Decides nothing."""

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from promptopt.data.field_statistics import FieldReport, Quantiles
from promptopt.data.inspection import AlikeRows, Inspection, SplitReport


def print_inspection(found: Inspection, console: Console) -> None:
    """Print everything that was found."""
    console.print(f"[bold]{escape(found.source)}[/bold]: {found.rows} rows", highlight=False)
    languages = ", ".join(f"{language} {rows}" for language, rows in found.languages.items())
    facts = [f"languages of the inputs (rows): {languages}"]
    facts.append(f"bad rows: {found.bad_rows}; equal to an earlier row, left out: {found.duplicates}")
    facts.append(f"nearly equal to an earlier row, still in: {found.near_duplicates}")
    if found.groups:
        size = f"median {found.groups.median_rows:g} rows, largest {found.groups.largest}"
        facts.append(f"groups: {found.groups.count} ({size})")
    if found.tokenizer:
        facts.append(f"tokens as {found.tokenizer} cuts them")
    _lines(console, facts)
    _lines(console, [f"bad row: {problem}" for problem in found.problems])
    _lines(console, _alike(found.near_duplicate_examples))
    console.print(_field_table(found.fields, bool(found.tokenizer)))
    for field in found.fields:
        if field.labels:
            console.print(_label_table(field))
    if found.splits:
        _print_splits(found.splits, console)
    if found.split_problem:
        _lines(console, [f"no splits: {found.split_problem}"])


def _print_splits(splits: SplitReport, console: Console) -> None:
    rows = ", ".join(f"{name} {count}" for name, count in splits.rows.items())
    lines = [f"splits: {rows}; {splits.left_over} left over, {splits.overlapping} also in the test source"]
    if splits.dropped:
        lines.append(f"left out of train and val, being nearly equal to a row of a later split: {splits.dropped}")
    lines += [f"LEAK, near-duplicates {where}: {count} rows" for where, count in splits.near_duplicates.items()]
    lines += _alike(splits.examples)
    lines += [
        f"LEAK, same {shared.field!r}: {shared.rows} rows of {shared.split} have one that stands in {shared.other} "
        f"too; `group` on its column keeps them together"
        for shared in splits.shared
    ]
    if not splits.near_duplicates and not splits.shared:
        lines.append("no leaks between splits were found")
    _lines(console, lines)


def _field_table(fields: Sequence[FieldReport], tokens: bool) -> Table:
    table = Table(title="Fields (lengths: p10, median, p90, longest)")
    for name in ("field", "types", "missing", "empty", "distinct", "characters", *(["tokens"] if tokens else [])):
        table.add_column(name, overflow="fold")
    for field in fields:
        types = ", ".join(f"{name} {count}" for name, count in field.types.items())
        cells = [escape(field.name), types, str(field.missing), str(field.empty), str(field.distinct)]
        table.add_row(*cells, _lengths(field.characters), *([_lengths(field.tokens)] if tokens else []))
    return table


def _label_table(field: FieldReport) -> Table:
    table = Table("value", "rows", title=f"Values of {escape(field.name)} ({field.distinct})")
    for value, rows in field.labels.items():
        table.add_row(escape(value), str(rows))
    return table


def _lengths(found: Quantiles | None) -> str:
    return f"{found.p10} {found.median} {found.p90} {found.maximum}" if found else ""


def _alike(examples: Sequence[AlikeRows]) -> list[str]:
    return [f"alike ({alike.similarity:.2f}): {alike.first} ~ {alike.second}" for alike in examples]


def _lines(console: Console, lines: Sequence[str]) -> None:
    for line in lines:
        console.print(f"  {line}", highlight=False, markup=False, soft_wrap=True)
