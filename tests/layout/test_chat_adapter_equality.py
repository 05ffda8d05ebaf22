"""`Layout()` is DSPy's ChatAdapter, character for character: prompts, demos, history, answers and parsing."""

import enum
from typing import Any, Literal, Optional

import dspy
import pydantic
import pytest

from promptopt.layout.dspy_adapter import LayoutAdapter


class Place(pydantic.BaseModel):
    city: str
    height_m: int | None = None


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Plain(dspy.Signature):
    """Answer the question."""

    context: str = dspy.InputField()
    question: str = dspy.InputField(desc="what is asked")
    answer: str = dspy.OutputField(desc="a few words")


class ManyLines(dspy.Signature):
    """Read the text.

        Indented: {braces} and %s stay.

    Then say what it is about.
    """

    text: str = dspy.InputField(desc="some text, with a trailing space ")
    topic: str = dspy.OutputField()


class Typed(dspy.Signature):
    """Fill in the form."""

    text: str = dspy.InputField()
    passages: list[str] = dspy.InputField()
    place: Place = dspy.InputField(desc="where")
    limit: int = dspy.InputField(ge=0, le=10)
    count: int = dspy.OutputField(desc="how many", gt=0)
    sure: bool = dspy.OutputField()
    kind: Literal["a", "it's", 'so "b"'] = dspy.OutputField()
    ratio: float = dspy.OutputField(ge=0.0)
    names: list[str] = dspy.OutputField()
    maybe: Optional[int] = dspy.OutputField()  # noqa: UP045
    either: str | None = dspy.OutputField()
    best: Place = dspy.OutputField()
    places: dict[str, Place] = dspy.OutputField()
    colour: Colour = dspy.OutputField()


class Chatting(dspy.Signature):
    """Chat."""

    history: dspy.History = dspy.InputField()
    question: str = dspy.InputField()
    answer: str = dspy.OutputField()


class WithTools(dspy.Signature):
    """Choose tools."""

    tools: list[dspy.Tool] = dspy.InputField()
    question: str = dspy.InputField()
    calls: dspy.ToolCalls = dspy.OutputField()


class WithCode(dspy.Signature):
    """Write code."""

    question: str = dspy.InputField()
    code: dspy.Code["python"] = dspy.OutputField()  # noqa: F821
    reasoning: dspy.Reasoning = dspy.OutputField()


def add(left: int, right: int) -> int:
    """Add two numbers."""
    return left + right


TYPED_INPUTS = {"text": "T", "passages": ["p", "日本"], "place": Place(city="Rome"), "limit": 3}
TYPED_OUTPUTS = {
    "count": 2,
    "sure": True,
    "kind": "it's",
    "ratio": 0.5,
    "names": ["x"],
    "maybe": None,
    "either": "e",
    "best": Place(city="Oslo", height_m=1),
    "places": {"a": Place(city="Bonn")},
    "colour": Colour.RED,
}
PLAIN_DEMO = {"context": "C", "question": "Q", "answer": "A"}

CASES: dict[str, tuple[type[dspy.Signature], list[Any], dict[str, Any]]] = {
    "plain": (Plain, [], {"context": "line one\n\n  line two ", "question": "Why?"}),
    "from a string": (dspy.Signature("a, b: int -> c: float, d"), [{"a": "1", "b": 2, "c": 0.5, "d": ""}], {"a": "x"}),
    "missing input": (Plain, [], {"question": "Why?"}),
    "no values": (Plain, [], {}),
    "none value": (Plain, [], {"context": None, "question": "Why?"}),
    "list in a str field": (Plain, [], {"context": ["one", "two\nlines", "«q»"], "question": ["only"]}),
    "empty list and tuple": (Plain, [], {"context": [], "question": ("a", "b")}),
    "complete demos": (Plain, [PLAIN_DEMO, dspy.Example(**PLAIN_DEMO)], {"question": "Q2"}),
    "demos are reordered": (
        Plain,
        [
            PLAIN_DEMO,
            {"question": "Q", "answer": "A"},
            {"context": "C", "question": "Q"},
            {"answer": "A"},
            {**PLAIN_DEMO, "answer": None},
            dspy.Example(**PLAIN_DEMO, augmented=True, other=1).with_inputs("question"),
        ],
        {"context": "c", "question": "q"},
    ),
    "incomplete outputs": (dspy.Signature("q -> a, b"), [{"q": "Q", "a": "A"}, {"q": "Q", "b": "B"}], {"q": "q"}),
    "many lines": (ManyLines, [{"text": " T \n", "topic": "t"}], {"text": "\n T \n"}),
    "typed": (Typed, [{**TYPED_INPUTS, **TYPED_OUTPUTS}, {"text": "T", "count": 1}], TYPED_INPUTS),
    "chain of thought": (dspy.ChainOfThought(Plain).predict.signature, [PLAIN_DEMO], {"question": "q"}),
    "no inputs": (dspy.Signature({"line": (str, dspy.OutputField())}, "Say something."), [], {}),
    "empty instructions": (Plain.with_instructions(""), [], {"question": "q"}),
    "one line per style": (Plain.with_instructions("a\n\tb\n\n c"), [], {"question": "q"}),
    "no history yet": (Chatting, [], {"question": "q"}),
    "empty history": (Chatting, [], {"question": "q", "history": dspy.History(messages=[])}),
    "history": (
        Chatting,
        [{"question": "Q", "answer": "A"}, {"question": "Q", "answer": "A", "history": dspy.History(messages=[])}],
        {
            "question": "q",
            "history": dspy.History(messages=[{"question": "a", "answer": "b"}, {"question": "c"}, {"answer": "d"}]),
        },
    ),
    "tools": (WithTools, [], {"tools": [dspy.Tool(add)], "question": "1+1"}),
    "code and reasoning": (WithCode, [{"question": "Q", "code": "x=1", "reasoning": "r"}], {"question": "q"}),
}


@pytest.mark.parametrize("case", CASES)
def test_prompts_are_equal(case: str) -> None:
    signature, demos, inputs = CASES[case]
    assert LayoutAdapter().format(signature, demos, inputs) == dspy.ChatAdapter().format(signature, demos, inputs)


@pytest.mark.parametrize("case", CASES)
def test_parts_of_the_system_message_are_equal(case: str) -> None:
    signature = CASES[case][0]
    ours, theirs = LayoutAdapter(), dspy.ChatAdapter()
    for part in (
        *("format_system_message", "format_field_description", "format_field_structure", "format_task_description"),
        "user_message_output_requirements",
    ):
        assert getattr(ours, part)(signature) == getattr(theirs, part)(signature)


@pytest.mark.parametrize(
    ("signature", "inputs", "outputs"),
    [
        (Plain, {"context": "C", "question": "Q"}, {"answer": "two\nlines"}),
        (Plain, {"context": "C", "question": "Q"}, {"answer": ""}),
        (Typed, TYPED_INPUTS, TYPED_OUTPUTS),
    ],
)
def test_finetuning_data_is_equal(
    signature: type[dspy.Signature], inputs: dict[str, Any], outputs: dict[str, Any]
) -> None:
    ours = LayoutAdapter().format_finetune_data(signature, [], inputs, outputs)
    assert ours == dspy.ChatAdapter().format_finetune_data(signature, [], inputs, outputs)


TWO = dspy.Signature("question -> answer, why")
COMPLETIONS = (
    "[[ ## answer ## ]]\nParis\n\n[[ ## why ## ]]\nbecause\nof it\n\n[[ ## completed ## ]]\n",
    "[[ ## answer ## ]]\nParis\n\n[[ ## why ## ]]\nbecause",
    "Sure!\n[[ ## answer ## ]] Paris\n[[ ## why ## ]] because\nof it",
    "[[ ## why ## ]]\nb\n[[ ## answer ## ]]\na\n[[ ## answer ## ]]\nsecond",
    "[[ ## answer ## ]]\na\n[[ ## other ## ]]\nx\n[[ ## why ## ]]\nb\n[[ ## completed ## ]]\ntrailing",
    "[[ ## answer ## ]]\n  a\n   b\n[[ ## why ## ]]",
    "[[ ## answer ## ]]\na [[ ## why ## ]] b\n[[ ## why ## ]]\nc",
    "[[ ## answer ## ]]\nonly one",
    "[[## answer ##]]\na\n[[ ## why ## ]]\nb",
    "no marker at all",
    '{"answer": "a", "why": "b"}',
)


@pytest.mark.parametrize("completion", COMPLETIONS)
def test_parsing_is_equal(completion: str) -> None:
    assert _parsed(LayoutAdapter(), TWO, completion) == _parsed(dspy.ChatAdapter(), TWO, completion)


@pytest.mark.parametrize(
    "completion",
    [
        dspy.ChatAdapter().format_assistant_message_content(Typed, TYPED_OUTPUTS),
        dspy.ChatAdapter().format_assistant_message_content(Typed, {**TYPED_OUTPUTS, "count": "many"}),
        dspy.ChatAdapter().format_assistant_message_content(Typed, {**TYPED_OUTPUTS, "kind": "c"}),
    ],
)
def test_typed_parsing_is_equal(completion: str) -> None:
    assert _parsed(LayoutAdapter(), Typed, completion) == _parsed(dspy.ChatAdapter(), Typed, completion)


def test_an_indented_marker_loses_nothing() -> None:
    # ChatAdapter cuts the line at the wrong column here and answers "]] a".
    parsed = LayoutAdapter().parse(TWO, "  [[ ## answer ## ]] a\n  [[ ## why ## ]] b")
    assert parsed == {"answer": "a", "why": "b"}


def test_optional_outputs_may_be_missing() -> None:
    signature = dspy.Signature("q -> a, b: Optional[str]")
    completion = "[[ ## a ## ]]\nA"
    assert LayoutAdapter().parse(signature, completion) == {"a": "A", "b": None}
    assert LayoutAdapter().parse(signature, completion) == dspy.ChatAdapter().parse(signature, completion)


def _parsed(adapter: dspy.ChatAdapter, signature: type[dspy.Signature], completion: str) -> object:
    try:
        return adapter.parse(signature, completion)
    except dspy.utils.exceptions.AdapterParseError:
        return "AdapterParseError"
