"""SQL text: the query in what a model wrote, its syntax tree, the order that it asks for. Runs nothing."""

import logging
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from promptopt.extras import require

_FENCE = re.compile(r"```(?:\w+)?[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL)
_ORDER_WORDS = re.compile(
    r"\b(order(?:ed)?|sort(?:ed)?|arranged?|rank(?:ed)?|ascending|descending|alphabetical(?:ly)?|chronological(?:ly)?)\b"
    r"|昇順|降順|並べ|順に|順で",
    re.IGNORECASE,
)
_LONGEST = 100_000


def query_of(text: str) -> str:
    """Return the query in `text`: what stands in its first Markdown fence, else all of it; without a final `;`."""
    fence = _FENCE.search(text)
    return (fence[1] if fence else text).strip().rstrip("; \n\t")


def asks_for_order(question: str) -> bool:
    """Return whether a question wants its rows in an order, by its words (order, sort, arrange, rank, ...)."""
    return _ORDER_WORDS.search(question) is not None


@lru_cache(maxsize=4096)
def parse_sql(query: str) -> Any:
    """Return the sqlglot tree of one SELECT (or UNION, ...) in SQLite's dialect, or None where it is not one.

    The tree is shared by all callers: copy it before changing it.

    Raises:
        MissingExtraError: sqlglot is not installed.
    """
    trees = _trees(query)
    is_query = len(trees) == 1 and isinstance(trees[0], require("sqlglot").exp.Query) and trees[0].selects
    return trees[0] if is_query else None


def parse_script(script: str) -> Sequence[Any]:
    """Return the sqlglot trees of a script's statements; () where it does not parse."""
    return _trees(script)


def _trees(text: str) -> list[Any]:
    sqlglot = require("sqlglot")
    # It warns of statements that it does not know; what a model writes is no news.
    logging.getLogger("sqlglot").setLevel(logging.ERROR)
    if len(text) > _LONGEST:
        return []
    try:
        return [tree for tree in sqlglot.parse(text, read="sqlite") if tree is not None]
    except (sqlglot.errors.SqlglotError, RecursionError, ValueError, TypeError, AttributeError, IndexError):
        return []  # sqlglot lets a few Python errors through on text that is no SQL at all


def order_keys(query: str) -> tuple[int, ...] | None:
    """Return the columns of the result that the outermost ORDER BY sorts by.

    None: there is no ORDER BY. (): there is one, but not (only) by columns of the result, or it cannot be told.
    """
    tree = parse_sql(query)
    if tree is None:
        return () if re.search(r"\border\s+by\b[^)]*\Z", query, re.IGNORECASE) else None
    order = tree.args.get("order")
    if order is None:
        return None
    columns = tree.selects
    if any(column.is_star for column in columns):
        return ()
    places: dict[str, int] = {}
    for position, column in enumerate(columns):
        places.setdefault(column.alias_or_name.lower(), position)
        places.setdefault(column.unalias().sql(dialect="sqlite").lower(), position)
        places.setdefault(str(position + 1), position)
    keys = [places.get(term.this.sql(dialect="sqlite").lower()) for term in order.expressions]
    found = tuple(key for key in keys if key is not None)
    return found if len(found) == len(keys) else ()
