"""WikiSQL as a task: its signature, and a metric without a database.

The slice has schemas but no table contents, so queries cannot be executed; their texts are compared instead.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import dspy

from promptopt.metrics.answers import unit_f1
from promptopt.metrics.base import Fields, Metric, Score
from promptopt.metrics.values import feedback, gold_texts, text_of

_PIECE = re.compile(r"'[^']*'|[\w.]+|<=|>=|<>|!=|[^\s\w]")
_FENCE = re.compile(r"^```(?:sql)?\s*|\s*```$", re.IGNORECASE)


class QuestionToSql(dspy.Signature):
    """Write the SQL query that answers the question from the table."""

    table: str = dspy.InputField(desc="CREATE TABLE statement")
    question: str = dspy.InputField(desc="what to find out")
    query: str = dspy.OutputField(desc="one SELECT statement")


def question_to_sql() -> dspy.Module:
    """Return the program: one query per question."""
    return dspy.Predict(QuestionToSql)


def sql_pieces(text: str) -> Sequence[str]:
    """Return the words, values and signs of a query: in lower case, with one kind of quotes and no code fence."""
    plain = _FENCE.sub("", text.strip()).replace('"', "'").replace("`", "").rstrip("; \n").lower()
    return _PIECE.findall(plain)


@dataclass(frozen=True)
class SqlMatch(Metric):
    """F1 of the pieces of two queries; `exact_match`, where all stand in the same order, among the details."""

    name: str = "sql_piece_f1"

    def score(self, example: Fields, prediction: Fields) -> Score:
        """Return how far the query is the gold one."""
        golds = gold_texts(example, ("query",), self.name)
        text = text_of(prediction.get("query"))
        pieces = sql_pieces(text)
        value = max(unit_f1(pieces, sql_pieces(gold)) for gold in golds)
        exact = float(any(pieces == sql_pieces(gold) for gold in golds))
        return Score(value, feedback(golds, text), {"exact_match": exact})

    def requires(self) -> tuple[str, ...]:
        """Return the gold field."""
        return ("query",)
