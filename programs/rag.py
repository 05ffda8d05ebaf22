"""Retrieve, then answer; and, for comparison, answer without retrieval."""

import dspy

from promptopt.retrieval.retriever import Retriever
from signatures.rag import AnswerFromPassages, AnswerQuestion


class RetrieveThenAnswer(dspy.Module):
    """One predictor, given the question and up to `k` passages that `retriever` finds for it.

    What is searched decides the answers, so `fingerprint` belongs to the identity of a search (`program_identity`).
    """

    def __init__(self, retriever: Retriever, k: int = 3) -> None:
        super().__init__()
        self.retriever = retriever
        self.k = k
        self.answer = dspy.Predict(AnswerFromPassages)

    @property
    def fingerprint(self) -> str:
        return f"{self.retriever.fingerprint} k={self.k}"

    def forward(self, question: str) -> dspy.Prediction:
        passages = [passage.text for passage in self.retriever.retrieve(question, self.k)]
        return self.answer(passages=passages, question=question)


def answer_without_passages() -> dspy.Module:
    """Return the program: one prediction per question, from what the model knows."""
    return dspy.Predict(AnswerQuestion)
