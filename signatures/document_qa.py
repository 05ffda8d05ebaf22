"""Answering a question from a document."""

import dspy


class AnswerFromDocument(dspy.Signature):
    """Answer the question from the document."""

    document: str = dspy.InputField(desc="text that holds the answer")
    question: str = dspy.InputField(desc="what to find out")
    answer: str = dspy.OutputField(desc="a few words copied from the document")
