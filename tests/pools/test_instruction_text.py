"""From a reply to instructions: wrappings come off, the text stays; what is no instruction is refused with a reason."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from promptopt.pools.instruction_text import LONGEST, SHORT_OVERLAP, Answers, instruction_in, refusal_reason

PLAIN = st.from_regex(r"[A-Z][a-z]{3,12}( [a-z]{1,9}){2,8}\.", fullmatch=True)
WRAPPINGS = {
    "label": "Instruction: {}",
    "bold label": "**New Instruction:**\n{}",
    "heading": "# Improved instruction\n{}",
    "fence": "Sure, here it is:\n```text\n{}\n```\nI hope this helps!",
    "quotes": '"{}"',
    "typographic": "“{}”",
    "Japanese": "指示\uff1a「{}」",
    "preamble": "Here is the instruction:\n\n{}",
    "thoughts": "<think>The label is wrong.\n\nInstruction: no</think>\n\n{}",
    "several": 'Certainly, see below:\n\nPrompt: "`{}`"',
    "none": "  {}\n",
}
NO_ANSWERS = Answers([])


@given(PLAIN, st.sampled_from(sorted(WRAPPINGS)), st.booleans())
def test_wrappings_come_off_and_nothing_else(text: str, wrapping: str, marked: bool) -> None:
    assert instruction_in(WRAPPINGS[wrapping].format(text), marked=marked) == text


@pytest.mark.parametrize(
    "text",
    [
        '"yes" or "no": say which one fits.',
        "You are an editor.\n\nInstructions:\n1. Read.\n2. Write.",
        "Answer with the name only.\n\nLeave out titles.",
        "Use `code` and end with `done`",
    ],
)
def test_what_only_looks_wrapped_stays(text: str) -> None:
    assert instruction_in(text) == text


def test_of_a_reply_that_thinks_first_only_what_is_marked_counts() -> None:
    thoughts = "They all have a date in the wrong order.\n\nInstruction: say less.\n\n"
    dates = "Write dates in full."
    assert instruction_in(f"{thoughts}```\n{dates}\n```", marked=True) == dates
    assert instruction_in(f"{thoughts}Improved instruction:\n{dates}", marked=True) == dates
    assert instruction_in("They are all wrong.\n\nWrite dates in full.", marked=True) == ""
    assert instruction_in("<think>They are all wrong. Instruction: none") == ""


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "next to no words"),
        ("1. 2. 3.", "next to no words"),
        ("quality Chapobob 12", "next to no words"),
        ("Answer it with \ufffd\ufffd care.", "characters that are none"),
        ("Answer it with \x00 care.", "characters that are none"),
        ("Write " + "a long text " * LONGEST, "characters, more than"),
        ("I'm sorry, I cannot help with that.", "refused"),
        ("Write the answer below [[ ## answer ## ]].", "layout's part"),
        ("Answer the question. " * 12, "repeats itself"),
        ("  answer THE question", "known already"),
        ("Say it short", "known already"),
    ],
)
def test_what_is_no_instruction_is_refused(text: str, reason: str) -> None:
    assert reason in refusal_reason(text, ["Answer the question.", "Say it short."], NO_ANSWERS)


@pytest.mark.parametrize("text", ["Answer the question in one word.", "質問に短く答えなさい。", "要約せよ"])
def test_instructions_are_taken(text: str) -> None:
    assert refusal_reason(text, ["Answer the question."], NO_ANSWERS) == ""


LONG = "The treaty was signed in the old town hall of Muenster in 1648."
LABEL = "card_payment_fee_charged"
ANSWERS = Answers(
    [("a", LONG), ("b", "Wilhelmine of Prussia"), ("c", ["no", {"also": "Frederick the Great"}]), ("d", 1648)]
    + [(owner, LABEL) for owner in "abc"]
    + [(owner, f"The answer to this question is as follows: {owner}") for owner in "abc"]
)


@pytest.mark.parametrize(
    "text",
    [
        f"Answer fully, as in: {LONG}",
        "For the treaty say it WAS  signed in the old town hall of muenster, and so on.",
        "If asked for the princess, answer Wilhelmine of Prussia.",
        "Kings are called Frederick the Great.",
    ],
)
def test_an_answer_given_away_is_refused(text: str) -> None:
    assert "gives away" in refusal_reason(text, ["Answer."], ANSWERS)


@pytest.mark.parametrize(
    "text",
    [
        "Say no, or the year 1648, or whatever the text says.",
        f"Choose {LABEL} for fees.",
        "Begin with: The answer to this question is as follows.",
        "Say where it was signed in the old town.",
    ],
)
def test_short_overlaps_and_shared_words_may_be_named(text: str) -> None:
    assert refusal_reason(text, ["Answer."], ANSWERS) == ""


def test_what_the_programs_own_instructions_say_may_be_said_again() -> None:
    text = "Name her: Wilhelmine of Prussia, in full."
    assert refusal_reason(text, ["Is it Wilhelmine of Prussia?"], ANSWERS) == ""
    # Known proposals are no such licence.
    assert refusal_reason(text, ["Answer.", "Is it Wilhelmine of Prussia?"], ANSWERS)


@given(PLAIN, PLAIN)
def test_a_whole_answer_inside_an_instruction_is_always_found(answer: str, around: str) -> None:
    assume(len(answer) > SHORT_OVERLAP)
    assert Answers([("a", answer)]).leaked_by(f"{around} For example: {answer} {around}")
    assert not Answers([("a", answer), ("b", answer)]).leaked_by(f"{around} For example: {answer} {around}")
