"""Naming what a bank's customer wants (Banking77; Casanueva et al., 2020)."""

import dspy


class CustomerIntent(dspy.Signature):
    """Name the intent of the bank customer's message."""

    text: str = dspy.InputField(desc="a customer's message")
    label: str = dspy.OutputField(desc="the intent, in words joined by underscores")
