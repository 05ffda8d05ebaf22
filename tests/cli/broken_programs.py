"""Programs and metrics with the faults that people's own code has."""

import dspy

from promptopt.metrics.base import Fields, Metric, Score


def thinking() -> dspy.Module:
    """A program that wants reasoning, which no gold answer has."""
    return dspy.ChainOfThought("document, question -> answer")


def failing() -> dspy.Module:
    """A factory that fails."""
    raise ZeroDivisionError("division by zero")


class _Raising(Metric):
    name = "raising"

    def score(self, example: Fields, prediction: Fields) -> Score:
        raise KeyError("no such thing")


RAISING = _Raising()
