"""Turning a sentence about video games into the meaning representation of ViGGO (Juraska et al., 2019)."""

import dspy


class SentenceToMeaning(dspy.Signature):
    """Write the sentence as one function with its attributes: function(attribute[value], ...)."""

    sentence: str = dspy.InputField(desc="a sentence about a video game")
    meaning: str = dspy.OutputField(desc="function(attribute[value], ...)")
