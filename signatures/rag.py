"""Answering a question from passages that were found for it, or from what the model knows."""

import dspy


class AnswerFromPassages(dspy.Signature):
    """Answer the question from the passages."""

    passages: list[str] = dspy.InputField(desc="texts that may hold the answer, the likeliest first")
    question: str = dspy.InputField(desc="what to find out")
    answer: str = dspy.OutputField(desc="the answer, as the passages give it")


class AnswerQuestion(dspy.Signature):
    """Answer the question."""

    question: str = dspy.InputField(desc="what to find out")
    answer: str = dspy.OutputField(desc="the answer")
