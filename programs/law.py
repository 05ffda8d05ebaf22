"""Programs that answer questions on law."""

import dspy

from signatures.law import AnswerFromLaw


def answer_from_law() -> dspy.Module:
    """Return the program: one choice per question."""
    return dspy.Predict(AnswerFromLaw)
