"""Whether two query results say the same. Knows no SQL."""

from collections.abc import Sequence

from promptopt.metrics.sql.sandbox import Cell, QueryResult

Row = tuple[Cell, ...]


def same_rows(gold: QueryResult, found: QueryResult, order: Sequence[int] | None = None) -> bool:
    """Return whether two results agree after duplicate rows are dropped.

    Numbers are equal where nine digits are. Names of columns do not count; where both results have the same names in
    another order, they may be in that order.

    Args:
        order: None = the order of rows does not count. Columns of the gold = it counts by their values, so that rows
            with equal keys may change places. () = it counts throughout.
    """
    if len(gold.columns) != len(found.columns):
        return False
    wanted = _distinct(gold.rows)
    return any(
        _agree(wanted, rows, order) for rows in (_distinct(found.rows), _renamed(gold, found)) if rows is not None
    )


def _agree(wanted: Sequence[Row], rows: Sequence[Row], order: Sequence[int] | None) -> bool:
    if order is not None and not order:
        return list(wanted) == list(rows)
    if set(wanted) != set(rows):
        return False
    return order is None or [[row[key] for key in order] for row in wanted] == [
        [row[key] for key in order] for row in rows
    ]


def _renamed(gold: QueryResult, found: QueryResult) -> list[Row] | None:
    """Return the rows found with their columns in the gold's order, where the names allow it."""
    wanted = [name.lower() for name in gold.columns]
    names = [name.lower() for name in found.columns]
    if wanted == names or len(set(names)) < len(names) or set(names) != set(wanted):
        return None
    places = [names.index(name) for name in wanted]
    return _distinct([tuple(row[place] for place in places) for row in found.rows])


def _distinct(rows: Sequence[Row]) -> list[Row]:
    return list(dict.fromkeys(tuple(_plain(cell) for cell in row) for row in rows))


def _plain(cell: Cell) -> Cell:
    return float(f"{cell:.9g}") if isinstance(cell, float) else cell
