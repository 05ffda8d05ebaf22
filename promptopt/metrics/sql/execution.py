"""SQL scored by what it finds in a SQLite database. Compares no query texts."""

import re
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Literal

from promptopt.errors import DataError
from promptopt.metrics.base import Fields, GoldMetric, Score
from promptopt.metrics.sql.rows import same_rows
from promptopt.metrics.sql.sandbox import Database, Limits, QueryResult, run_query
from promptopt.metrics.sql.text import asks_for_order, order_keys, query_of
from promptopt.metrics.values import feedback, first_field, gold_texts, text_of

_ENDINGS = ("", ".sqlite", ".sqlite3", ".db")
_CHANGING = re.compile(r"now|current_|localtime", re.IGNORECASE)


@dataclass(frozen=True)
class SqlExecution(GoldMetric):
    """1 where the query finds what a gold query finds, else 0; any gold alternative may match, a failing query is 0.

    Rows are compared after dropping duplicates; their order counts where the question asks for one and the gold query
    gives one (rows with equal keys may change places). Detail: `runs`, whether the query runs at all. Every query runs
    in the sandbox of `promptopt.metrics.sql.sandbox`. Needs the extra `metrics` (sqlglot).

    Source: execution accuracy as defog's sql-eval defines it; multiple golds as there.

    Attributes:
        gold_fields: the first of these that the example has holds the gold query, or a list of alternatives.
        database_fields: the first of these that the example has holds the path of the database.
        folder: where relative paths start; a name may lack its ending .sqlite, .sqlite3 or .db.
        order: when the order of rows counts, given an ORDER BY in the gold: "question" = where a question field asks
            for it by its words, or is not there; "gold" = always; "never".
    """

    name: str = "sql_execution"
    prediction_field: str = "query"
    gold_fields: tuple[str, ...] = ("gold_alternatives", "queries", "query", "sql")
    database_fields: tuple[str, ...] = ("database", "db")
    question_fields: tuple[str, ...] = ("question",)
    folder: str = ""
    order: Literal["question", "gold", "never"] = "question"
    limits: Limits = field(default_factory=Limits)

    def score(self, example: Fields, prediction: Fields) -> Score:
        """Return whether the query finds what it should.

        Raises:
            DataError: a gold query or the database is missing, or fails.
        """
        golds = [query_of(gold) for gold in gold_texts(example, self.gold_fields, self.name)]
        text = text_of(prediction.get(self.prediction_field))
        database = self._database(example)
        expected = [(gold, self._run_gold(database, gold)) for gold in golds]
        query = query_of(text)
        if not query:
            return Score(0.0, feedback(golds, text), {"runs": 0.0})
        found = _run(database, query, self.limits)
        if found.error:
            return Score(0.0, f"{feedback(golds, query)}: {found.error}", {"runs": 0.0})
        right = any(same_rows(result, found, self._order(example, gold)) for gold, result in expected)
        said = "" if right else f" ({len(found.rows)} rows; expected {' or '.join(_sizes(expected))})"
        return Score(float(right), feedback(golds, query) + said, {"runs": 1.0})

    def requires(self) -> tuple[str, ...]:
        """Return the fields of the gold and of the database, where there is only one to look in."""
        return super().requires() + (self.database_fields if len(self.database_fields) == 1 else ())

    def requires_any(self) -> tuple[tuple[str, ...], ...]:
        """Return the fields of the gold and of the database, where there are several to look in."""
        return super().requires_any() + ((self.database_fields,) if len(self.database_fields) > 1 else ())

    def _database(self, example: Fields) -> Database:
        name = text_of(example.get(first_field(example, self.database_fields, self.name)))
        places = [Path(self.folder, name + ending).expanduser() for ending in _ENDINGS]
        for place in places:
            if place.is_file():
                return Database(place)
        raise DataError(
            f"The metric {self.name!r}: there is no database {name!r} in {str(Path(self.folder).resolve())!r}. "
            "Give its path, or a SqlExecution(folder=...) of your own."
        )

    def _run_gold(self, database: Database, gold: str) -> QueryResult:
        found = _run(database, gold, self.limits)
        if found.error:
            raise DataError(f"The metric {self.name!r}: the gold query {gold!r} fails: {found.error}")
        return found

    def _order(self, example: Fields, gold: str) -> tuple[int, ...] | None:
        questions = [text_of(example.get(name)) for name in self.question_fields if example.get(name) is not None]
        wanted = self.order == "gold" or (
            self.order == "question" and (not questions or any(asks_for_order(question) for question in questions))
        )
        return order_keys(gold) if wanted else None


def _run(database: Database, query: str, limits: Limits) -> QueryResult:
    # What depends on the clock is asked anew.
    return run_query(database, query, limits) if _CHANGING.search(query) else _remembered(database, query, limits)


@lru_cache(maxsize=512)
def _remembered(database: Database, query: str, limits: Limits) -> QueryResult:
    return run_query(database, query, limits)


def _sizes(expected: list[tuple[str, QueryResult]]) -> list[str]:
    return list(dict.fromkeys(str(len(result.rows)) for _, result in expected))
