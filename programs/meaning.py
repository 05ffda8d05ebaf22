"""Programs that write sentences as meaning representations."""

import dspy

from signatures.meaning import SentenceToMeaning


def sentence_to_meaning() -> dspy.Module:
    """Return the program: one prediction per sentence."""
    return dspy.Predict(SentenceToMeaning)
