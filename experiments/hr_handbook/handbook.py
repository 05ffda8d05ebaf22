"""The handbook as a program's documents."""

import dspy

from programs.rag import RetrieveThenAnswer
from promptopt.retrieval.retriever import Retriever

ORIGIN = "https://github.com/18F/handbook"


def answer_from_handbook() -> dspy.Module:
    """Return the program: two short passages, for the starter model reads 2,048 tokens."""
    return RetrieveThenAnswer(Retriever("hr_18f_handbook/docs.jsonl", size=500, overlap=100, origin=ORIGIN), k=2)
