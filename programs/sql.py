"""Programs that write SQL."""

import dspy

from signatures.sql import QuestionToSql


def question_to_sql() -> dspy.Module:
    """Return the program: one query per question."""
    return dspy.Predict(QuestionToSql)
