"""Choosing the answer to a question on Japanese law (lawqa_jp; Digital Agency of Japan, 2025)."""

from typing import Literal

import dspy


class AnswerFromLaw(dspy.Signature):
    """法令の条文にもとづいて、正しい選択肢を一つ選んでください。"""

    law: str = dspy.InputField(desc="条文")
    question: str = dspy.InputField(desc="問題文")
    options: str = dspy.InputField(desc="選択肢")
    label: Literal["a", "b", "c", "d"] = dspy.OutputField(desc="選択肢の記号")
