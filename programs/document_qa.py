"""Programs that answer questions from documents."""

import dspy

from signatures.document_qa import AnswerFromDocument


def answer_from_document() -> dspy.Module:
    """Return the program: one prediction per question."""
    return dspy.Predict(AnswerFromDocument)
