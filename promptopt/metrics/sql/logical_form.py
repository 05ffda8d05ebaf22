"""SQL scored by its form, where there is no database to ask: the same tree after what does not matter is evened out."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from promptopt.extras import require
from promptopt.metrics.base import Fields, GoldMetric, Score
from promptopt.metrics.sql.rows import same_rows
from promptopt.metrics.sql.sandbox import Database, Limits, QueryResult, run_query
from promptopt.metrics.sql.synthetic import columns_of, synthetic_script
from promptopt.metrics.sql.text import order_keys, parse_sql, query_of
from promptopt.metrics.values import feedback, gold_texts, text_of

_LIMITS = Limits(time_limit_s=2.0, max_rows=10_000)


@dataclass(frozen=True)
class SqlLogicalForm(GoldMetric):
    """1 where the query has the form of a gold query, else 0; any gold alternative may match.

    The syntax trees are compared after evening out what says the same: letter case and quotes of names, `;`, white
    space, brackets, aliases of the only table, aliases of result columns, INNER, the order of what AND and OR join and
    of IN's values, the sides of a comparison, '5' and 5. Details: `strict`, the same text after white space. Where the
    example has a CREATE TABLE also `runs`, whether the query runs on that schema, and `synthetic`, whether it finds
    what a gold query finds in tables made up for the two: no proof that they mean the same, but what differs there is
    different. Needs the extra `metrics` (sqlglot).

    Source: logical form accuracy of WikiSQL (Zhong et al. 2017, arXiv 1709.00103), with the order of conditions free as
    in SQLNet (Xu et al. 2017, arXiv 1711.04436); synthetic tables after arXiv 2010.02840.

    Attributes:
        gold_fields: the first of these that the example has holds the gold query, or a list of alternatives.
        schema_fields: the first of these that the example has, if any, holds the CREATE TABLE statements.
        ignore_case: whether letter case of text values is ignored, as WikiSQL's own evaluation does.
    """

    name: str = "sql_logical_form"
    prediction_field: str = "query"
    gold_fields: tuple[str, ...] = ("gold_alternatives", "queries", "query", "sql")
    schema_fields: tuple[str, ...] = ("schema", "context", "table")
    ignore_case: bool = True

    def score(self, example: Fields, prediction: Fields) -> Score:
        """Return whether the query has the right form.

        Raises:
            DataError: the gold is missing, or the CREATE TABLE of the example fails.
        """
        golds = [query_of(gold) for gold in gold_texts(example, self.gold_fields, self.name)]
        query = query_of(text_of(prediction.get(self.prediction_field)))
        schema = next((text_of(example.get(name)) for name in self.schema_fields if example.get(name)), "")
        columns = columns_of(schema)
        form = logical_form(query, columns, self.ignore_case)
        right = form is not None and any(form == logical_form(gold, columns, self.ignore_case) for gold in golds)
        details = {"strict": float(any(query.split() == gold.split() for gold in golds))}
        if columns:
            details |= _outcome(schema, query, golds)
        return Score(max(float(right), details["strict"]) if query else 0.0, feedback(golds, query), details)


def _outcome(schema: str, query: str, golds: list[str]) -> dict[str, float]:
    if not query:
        return {"runs": 0.0, "synthetic": 0.0}
    database = Database(script=synthetic_script(schema, [*golds, query]))
    found = run_query(database, query, _LIMITS)
    same = not found.error and any(
        same_rows(expected, found, order_keys(gold))
        for gold in golds
        if not (expected := _expected(database, query, gold, found)).error
    )
    return {"runs": float(not found.error), "synthetic": float(same)}


def _expected(database: Database, query: str, gold: str, found: QueryResult) -> QueryResult:
    return found if gold == query else run_query(database, gold, _LIMITS)


@lru_cache(maxsize=4096)
def logical_form(query: str, columns: frozenset[str] = frozenset(), ignore_case: bool = True) -> str | None:
    """Return the text that all queries of the same form share, or None where `query` is not one SELECT.

    Args:
        columns: names of columns, in lower case; a name in double quotes that is none of them is a text, as in SQLite.
        ignore_case: whether texts are put in lower case.
    """
    parsed = parse_sql(query)
    if parsed is None:
        return None
    exp = require("sqlglot").exp
    try:
        tree = parsed.copy()
        only_table = len(list(tree.find_all(exp.Table))) == 1
        tree = tree.transform(lambda node: _plain_name(node, exp, columns, only_table))
        _drop_aliases(tree, exp)
        for node in list(tree.find_all(exp.Paren)):
            node.replace(node.this)
        return _canonical(tree, exp, ignore_case)
    except RecursionError:
        return None


def _plain_name(node: Any, exp: Any, columns: frozenset[str], only_table: bool) -> Any:
    if isinstance(node, exp.Column):
        quoted = isinstance(node.this, exp.Identifier) and node.this.args.get("quoted")
        if quoted and not node.table and columns and node.name.lower() not in columns:
            return exp.Literal.string(node.name)
        if only_table and node.table:
            return exp.Column(this=node.this)
    return node


def _drop_aliases(tree: Any, exp: Any) -> None:
    tables = list(tree.find_all(exp.Table))
    if len(tables) == 1:
        tables[0].set("alias", None)
    used = {column.name.lower() for column in tree.find_all(exp.Column)}
    for column in tree.selects:
        if isinstance(column, exp.Alias) and column.alias.lower() not in used:
            column.replace(column.this)


def _canonical(node: Any, exp: Any, ignore_case: bool) -> str:
    """Return the tree as one text, with free orders sorted."""

    def text(item: Any) -> str:
        return _canonical(item, exp, ignore_case)

    if isinstance(node, exp.Identifier):
        return str(node.name.lower())
    if isinstance(node, exp.Literal | exp.Neg) and (number := _number(node)) is not None:
        return number
    if isinstance(node, exp.Literal):
        return f"'{node.this.casefold() if ignore_case else node.this}'"
    if isinstance(node, exp.And | exp.Or):
        return f"{type(node).__name__}({', '.join(sorted(map(text, _joined(node))))})"
    if isinstance(node, exp.EQ | exp.NEQ):
        return f"{type(node).__name__}({', '.join(sorted((text(node.left), text(node.right))))})"
    if isinstance(node, exp.GT | exp.GTE | exp.LT | exp.LTE):
        less, more = (node.left, node.right) if isinstance(node, exp.LT | exp.LTE) else (node.right, node.left)
        strict = isinstance(node, exp.LT | exp.GT)
        return f"{'LT' if strict else 'LTE'}({text(less)}, {text(more)})"
    return f"{type(node).__name__}({', '.join(_arguments(node, exp, text))})"


def _arguments(node: Any, exp: Any, text: Callable[[Any], str]) -> list[str]:
    parts = []
    for key, value in sorted(node.args.items()):
        if value in (None, False, []) or (isinstance(node, exp.Join) and (key, value) == ("kind", "INNER")):
            continue
        items = [text(item) if isinstance(item, exp.Expression) else str(item).lower() for item in _listed(value)]
        free = isinstance(node, exp.In) and key == "expressions"
        parts.append(f"{key}=[{', '.join(sorted(items) if free else items)}]")
    return parts


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _joined(node: Any) -> list[Any]:
    """Return what a chain of the same connector joins, however it is nested."""
    sides = []
    for side in (node.left, node.right):
        sides += _joined(side) if type(side) is type(node) else [side]
    return sides


def _number(node: Any) -> str | None:
    try:
        number = float(node.this if isinstance(node.this, str) else f"-{node.this.this}")
    except (ValueError, TypeError, AttributeError):
        return None
    return f"{number:.15g}" if math.isfinite(number) else None
