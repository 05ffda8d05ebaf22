"""What a teacher is asked, as DSPy signatures, and the layout they are asked in."""

import dspy

from promptopt.config.synthesis import SynthesisTask
from promptopt.layout.spec import Language, Layout

WISHES = {
    "en": (
        "Ask about a fact.",
        "Ask who, where or when.",
        "Ask how much, how many or how long.",
        "Ask for a reason or a condition.",
        "Ask as somebody would who does not know the passage, in everyday words.",
        "Ask about a detail that is easily overlooked.",
    ),
    "ja": (
        "事実を一つ尋ねてください。",
        "誰が、どこで、いつ、のいずれかを尋ねてください。",
        "数量、金額、期間のいずれかを尋ねてください。",
        "理由または条件を尋ねてください。",
        "この文章を知らない人が普段の言葉で尋ねるように書いてください。",
        "見落としやすい細部を尋ねてください。",
    ),
}
"""Language -> what each visit to a passage is told, in turn, so that its questions differ."""


class WriteQuestionAnswer(dspy.Signature):
    """Write one question that the passage answers, and its answer.

    The answer is short and copied from the passage word for word. The question makes sense without the passage in
    sight, names what it is about, does not contain the answer, and is none of those written already. Use nothing that
    the passage does not say. Write in the language of the passage.
    """

    passage: str = dspy.InputField()
    wish: str = dspy.InputField(desc="what kind of question is wanted")
    written: str = dspy.InputField(desc="questions there are already")
    question: str = dspy.OutputField()
    answer: str = dspy.OutputField(desc="words of the passage")


class WriteTextForKeywords(dspy.Signature):
    """Write one short text for a web page that uses every keyword as it is written, once or twice.

    State no number, date, name or address beyond the keywords and the facts. Write in the language of the keywords.
    """

    keywords: list[str] = dspy.InputField()
    facts: str = dspy.InputField(desc="what may be stated; may be empty")
    wish: str = dspy.InputField()
    text: str = dspy.OutputField(desc="two or three sentences")


class WriteKeywordsAndText(dspy.Signature):
    """Choose three to five keywords of the passage, and write one short text for a web page that uses all of them.

    Keywords are words or short phrases as the passage has them. The text uses every keyword as it is written, and
    states nothing that the passage does not say. Write in the language of the passage.
    """

    passage: str = dspy.InputField()
    wish: str = dspy.InputField()
    written: str = dspy.InputField(desc="keywords that were chosen already")
    keywords: list[str] = dspy.OutputField()
    text: str = dspy.OutputField(desc="two or three sentences")


def signature_for(task: SynthesisTask, keywords_given: bool) -> type[dspy.Signature]:
    """Return what the teacher is asked for `task`."""
    if task == "question_answer":
        return WriteQuestionAnswer
    return WriteTextForKeywords if keywords_given else WriteKeywordsAndText


def teacher_layout(language: Language, constrained: bool) -> Layout:
    """Return how a teacher is asked: inputs between tags, the answer as JSON, by grammar where the LM can."""
    return Layout(field_style="xml", output_style="json", language=language, constrained=constrained)
