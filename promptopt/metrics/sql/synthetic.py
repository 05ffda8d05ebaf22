"""Small tables made up for a query, where only its CREATE TABLE is known. Compares nothing.

Rows are built around the constants that the queries compare with: a row that meets every condition, rows that miss one
of them, and mixtures. Two queries that differ in a condition then mostly find different rows. Source of the idea: test
suites for SQL (Zhong, Yu and Klein 2020, arXiv 2010.02840).
"""

import random
from collections.abc import Iterable, Sequence
from typing import Any

from promptopt.extras import require
from promptopt.metrics.sql.text import parse_script, parse_sql

_MIXED_ROWS = 40


def synthetic_script(schema: str, queries: Iterable[str], seed: int = 0) -> str:
    """Return `schema` with INSERT statements that fill its tables for `queries`; deterministic."""
    constants = _constants(queries)
    rng = random.Random(seed)
    lines = [schema.rstrip().rstrip(";") + ";"]
    for table, columns in _tables(schema):
        quoted = ", ".join(_identifier(column) for column in columns)
        rows = ", ".join(f"({', '.join(row)})" for row in _rows(columns, constants, rng))
        lines.append(f"INSERT OR IGNORE INTO {_identifier(table)} ({quoted}) VALUES {rows};")
    return "\n".join(lines)


def columns_of(schema: str) -> frozenset[str]:
    """Return the names of all columns that `schema` creates, in lower case."""
    return frozenset(column.lower() for _, columns in _tables(schema) for column in columns)


def _tables(schema: str) -> list[tuple[str, list[str]]]:
    exp = require("sqlglot").exp
    return [
        (tree.this.this.name, [column.name for column in tree.this.expressions if isinstance(column, exp.ColumnDef)])
        for tree in parse_script(schema)
        if isinstance(tree, exp.Create) and isinstance(tree.this, exp.Schema)
    ]


def _constants(queries: Iterable[str]) -> dict[str, list[str]]:
    """Return for each column, in lower case, values that meet its conditions or just miss them, as text."""
    exp = require("sqlglot").exp
    found: dict[str, list[str]] = {}
    for tree in filter(None, map(parse_sql, queries)):
        for condition in tree.find_all(exp.Predicate):
            columns = [column.name.lower() for column in condition.find_all(exp.Column)]
            for literal in condition.find_all(exp.Literal):
                values = _around(literal.this, condition, exp)
                for column in columns[:1]:
                    found.setdefault(column, []).extend(values)
    return {column: list(dict.fromkeys(values)) for column, values in found.items()}


def _around(value: str, condition: Any, exp: Any) -> list[str]:
    if isinstance(condition, exp.Like):
        value = value.replace("%", "").replace("_", "x")
    try:
        number = float(value.replace(",", ""))
    except ValueError:
        return [value]
    above = isinstance(condition, exp.GT | exp.GTE)
    near = [number + 1, number, number - 1] if above else [number - 1, number, number + 1]
    if isinstance(condition, exp.EQ):
        return [value]
    return [f"{item:g}" if abs(item) < 1e6 else f"{item:.0f}" for item in near]


def _rows(columns: Sequence[str], constants: dict[str, list[str]], rng: random.Random) -> list[list[str]]:
    known = [constants.get(column.lower(), []) for column in columns]

    def row(free: int, position: int | None = None, value: str = "") -> list[str]:
        """Meet every condition but the one at `position`; `free` fills the columns without a condition."""
        values = [near[0] if near else str(free) for near in known]
        if position is not None:
            values[position] = value
        return [_literal(item) for item in values]

    rows = [row(500), row(501)]
    for position, near in enumerate(known):
        # What surely misses the condition is above and below all that meets it, so that MAX and MIN see it; what lies
        # on its edge comes next, so that they tell > from >=.
        misses, edge = (near[-1], near[len(near) // 2]) if len(near) > 1 else ("none of these", "")
        for number, value in enumerate([*near, "0", "none of these"] if near else []):
            far = 2 if value == misses else 1 if value == edge else 0
            above, below = (980 + far, 120 - far) if far else (900 + number, 150 + number)
            rows += [row(above, position, value), row(below, position, value)]
    for _ in range(_MIXED_ROWS):
        choices = [[*near, str(rng.randrange(400, 600)), *["other"] * bool(near)] for near in known]
        rows.append([_literal(rng.choice(values)) for values in choices])
    return rows


def _literal(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"  # SQLite makes it a number where the column is one


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
