"""Solving a word problem of school mathematics (GSM8K; Cobbe et al., 2021)."""

import dspy


class SolveWordProblem(dspy.Signature):
    """Solve the problem step by step, then give the number it asks for."""

    question: str = dspy.InputField(desc="a word problem")
    solution: str = dspy.OutputField(desc="the calculation, one step per line")
    answer: str = dspy.OutputField(desc="the number alone")
