"""Programs that classify messages."""

import dspy

from signatures.intent import CustomerIntent


def customer_intent() -> dspy.Module:
    """Return the program: one prediction per message."""
    return dspy.Predict(CustomerIntent)
