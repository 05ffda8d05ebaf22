"""Programs that solve word problems."""

import dspy

from signatures.math_word_problem import SolveWordProblem


def solve_word_problem() -> dspy.Module:
    """Return the program: one prediction per problem, the steps before the number."""
    return dspy.Predict(SolveWordProblem)
