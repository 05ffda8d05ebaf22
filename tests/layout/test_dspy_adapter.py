"""LayoutAdapter inside DSPy programs, with an engine that replays recorded completions."""

import asyncio
import copy
import enum
import pickle
from collections.abc import Iterator
from typing import Any, Literal, Optional

import dspy
import pydantic
import pytest
from dspy.lm15 import Message, Request, Response, Usage
from dspy.utils.exceptions import AdapterParseError

from promptopt.errors import ConfigError, DataError
from promptopt.layout.dspy_adapter import LayoutAdapter, signature_spec
from promptopt.layout.presets import LAYOUTS
from promptopt.layout.render import prefill_text, render_completion
from promptopt.layout.signature import with_reasoning
from promptopt.layout.spec import Layout, OutputStyle

STYLES: tuple[OutputStyle, ...] = ("dspy", "xml", "json", "label", "bare")


class Replay:
    """Answers with the given completions in turn and remembers the requests."""

    def __init__(self, *completions: str) -> None:
        self.requests: list[Request] = []
        self._completions: Iterator[str] = iter(completions)

    def complete(self, request: Request) -> Response:
        self.requests.append(request)
        return Response(
            id=None,
            model="replay",
            message=Message.assistant(next(self._completions)),
            finish_reason="stop",
            usage=Usage(input_tokens=1, output_tokens=1, total_tokens=2),
        )

    def close(self) -> None:
        pass


class ReplayAsync(Replay):
    async def complete(self, request: Request) -> Response:  # type: ignore[override]
        return super().complete(request)

    async def aclose(self) -> None:
        pass


def lm_of(engine: Replay) -> dspy.LM:
    return dspy.LM("replay", engine=engine, cache=False)


class QA(dspy.Signature):
    """Answer the question."""

    question: str = dspy.InputField()
    context: str = dspy.InputField()
    answer: str = dspy.OutputField()


class Place(pydantic.BaseModel):
    city: str
    tags: list[str] = []


class Colour(enum.Enum):
    RED = "red"


class Form(dspy.Signature):
    """Fill in the form."""

    text: str = dspy.InputField()
    count: int = dspy.OutputField()
    sure: bool = dspy.OutputField()
    kind: Literal["a", "b"] = dspy.OutputField()
    names: list[str] = dspy.OutputField()
    maybe: Optional[float] = dspy.OutputField()  # noqa: UP045
    best: Place = dspy.OutputField()
    colour: Colour = dspy.OutputField()
    note: str = dspy.OutputField()


FORM = {
    "count": 3,
    "sure": False,
    "kind": "b",
    "names": ["x", "<count>", "日本"],
    "maybe": 0.5,
    "best": Place(city="[[ ## note ## ]]", tags=["---"]),
    "colour": Colour.RED,
    "note": " an edge\n",
}


def completion_of(layout: Layout, signature: type[dspy.Signature], outputs: dict[str, Any]) -> str:
    """What an LM writes after the prefill."""
    row = LayoutAdapter(layout).format_finetune_data(signature, [], {}, outputs)
    prefill = prefill_text(layout, signature_spec(signature))
    text: str = row["messages"][-1]["content"]
    assert text.startswith(prefill)
    return text[len(prefill) :]


@pytest.mark.parametrize("name", LAYOUTS)
def test_predict_works_under_every_preset(name: str) -> None:
    layout = LAYOUTS[name]
    answer = {"answer": "Rome", "reasoning": "Because."} if layout.reasoning else {"answer": "Rome"}
    engine = Replay(completion_of(layout, QA, answer))
    with dspy.context(lm=lm_of(engine), adapter=LayoutAdapter(layout)):
        prediction = dspy.Predict(QA)(question="Which capital?", context="Italy.")
    assert prediction.toDict() == answer
    assert len(engine.requests) == 1
    assert (engine.requests[0].messages[-1].role == "assistant") == layout.prefill


@pytest.mark.parametrize("prefill", [False, True])
@pytest.mark.parametrize("style", STYLES)
def test_typed_values_work_in_every_output_style(style: OutputStyle, prefill: bool) -> None:
    layout = Layout(output_style=style, prefill=prefill)
    assert LayoutAdapter(layout).parse(Form, completion_of(layout, Form, FORM)) == FORM


@pytest.mark.parametrize("style", STYLES)
def test_a_completion_that_does_not_parse_is_never_asked_for_again(style: OutputStyle) -> None:
    engine = Replay("[", '{"other": 1}', "<answer>Rome</answer>", "Answer: Rome")
    signature = dspy.Signature("question -> answer, why")
    with (
        dspy.context(lm=lm_of(engine), adapter=LayoutAdapter(Layout(output_style=style))),
        pytest.raises(AdapterParseError, match=f"output style '{style}'"),
    ):
        dspy.Predict(signature)(question="q")
    assert len(engine.requests) == 1


def test_async_calls_ask_once_too() -> None:
    engine = ReplayAsync("nothing", "more")
    lm = dspy.LM("replay", engine=Replay(), async_engine=engine, cache=False)

    async def ask() -> None:
        with dspy.context(lm=lm, adapter=LayoutAdapter(LAYOUTS["xml_query_last"])):
            await dspy.Predict(QA).acall(question="q", context="c")

    with pytest.raises(AdapterParseError):
        asyncio.run(ask())
    assert len(engine.requests) == 1


def test_a_wrong_type_is_a_parse_error_that_names_the_field() -> None:
    adapter = LayoutAdapter(Layout(output_style="xml"))
    with pytest.raises(AdapterParseError, match="'count' has the value 'many', which is no int"):
        adapter.parse(dspy.Signature("q -> count: int"), "<count>many</count>")


def test_json_values_become_text_for_str_fields() -> None:
    adapter = LayoutAdapter(LAYOUTS["json_io"])
    assert adapter.parse(dspy.Signature("q -> a, b"), '{"a": 3, "b": ["日"]}') == {"a": "3", "b": '["日"]'}


def test_the_prefill_is_put_in_front_of_the_completion_once() -> None:
    adapter = LayoutAdapter(Layout(output_style="json", prefill=True))
    assert adapter.format(QA, [], {"question": "q"})[-1] == {"role": "assistant", "content": '{"answer":'}
    assert adapter.parse(QA, ' "Rome"}') == {"answer": "Rome"}
    row = adapter.format_finetune_data(QA, [], {"question": "q"}, {"answer": "Rome"})
    assert [message["role"] for message in row["messages"]] == ["system", "user", "assistant"]
    assert row["messages"][-1]["content"] == '{"answer": "Rome"}'


def test_chain_of_thought_keeps_its_own_reasoning_field() -> None:
    layout = LAYOUTS["xml_reasoning"]
    program = dspy.ChainOfThought(QA)
    assert with_reasoning(layout, signature_spec(program.predict.signature)) == signature_spec(
        program.predict.signature
    )
    engine = Replay("<reasoning>Rome is in Italy.</reasoning>\n<answer>Rome</answer>")
    with dspy.context(lm=lm_of(engine), adapter=LayoutAdapter(layout)):
        prediction = program(question="q", context="c")
    assert (prediction.reasoning, prediction.answer) == ("Rome is in Italy.", "Rome")


def test_reasoning_of_the_layout_may_be_skipped_by_the_model() -> None:
    adapter = LayoutAdapter(LAYOUTS["xml_reasoning"])
    assert adapter.parse(QA, "<answer>Rome</answer>") == {"reasoning": None, "answer": "Rome"}
    demo = {"question": "q", "context": "c", **adapter.parse(QA, "<answer>Rome</answer>")}
    assert adapter.format(QA, [demo], {})[2]["content"] == "<answer>Rome</answer>"


def test_several_completions_with_and_without_reasoning() -> None:
    engine = Replay("<answer>Rome</answer>", "<reasoning>r</reasoning>\n<answer>Oslo</answer>")
    with dspy.context(lm=lm_of(engine), adapter=LayoutAdapter(LAYOUTS["xml_reasoning"])):
        prediction = dspy.Predict(QA, n=2, temperature=1.0)(question="q", context="c")
    assert prediction.completions.answer == ["Rome", "Oslo"]
    assert prediction.completions.reasoning == [None, "r"]


def test_finetuning_rows_refuse_an_answer_that_does_not_follow_the_prefill() -> None:
    layout = Layout(output_style="xml", prefill=True, reasoning=True)
    with pytest.raises(DataError, match="needs the field reasoning"):
        LayoutAdapter(layout).format_finetune_data(QA, [], {"question": "q"}, {"answer": "a"})


def test_react_runs_under_a_layout() -> None:
    def capital(country: str) -> str:
        """Look up a capital."""
        return f"{country}: Rome"

    layout = LAYOUTS["xml_query_last"]
    engine = Replay(
        "<next_thought>Look it up.</next_thought>\n<next_tool_name>capital</next_tool_name>\n"
        '<next_tool_args>{"country": "Italy"}</next_tool_args>',
        "<next_thought>Done.</next_thought>\n<next_tool_name>finish</next_tool_name>\n"
        "<next_tool_args>{}</next_tool_args>",
        "<reasoning>Seen.</reasoning>\n<answer>Rome</answer>",
    )
    with dspy.context(lm=lm_of(engine), adapter=LayoutAdapter(layout)):
        prediction = dspy.ReAct("question -> answer", tools=[capital])(question="Which capital?")
    assert prediction.answer == "Rome"
    assert prediction.trajectory["observation_0"] == "Italy: Rome"
    assert len(engine.requests) == 3


@pytest.mark.parametrize("name", ["xml_query_last", "label_query_last", "query_both_sides", "one_message"])
def test_history_becomes_turns(name: str) -> None:
    class Chat(dspy.Signature):
        """Chat."""

        question: str = dspy.InputField()
        history: dspy.History = dspy.InputField()
        answer: str = dspy.OutputField()

    layout = LAYOUTS[name]
    history = dspy.History(messages=[{"question": "first?", "answer": "yes"}])
    messages = LayoutAdapter(layout).format(Chat, [], {"question": "second?", "history": history})
    texts = [message["content"] for message in messages if message["role"] != "system"]
    assert "first?" in texts[0]
    assert "yes" in texts[1]
    assert texts[2].count("second?") == 1
    assert "history" not in "".join(texts).lower()


def test_history_in_a_program() -> None:
    signature = dspy.Signature("question, history: dspy.History -> answer")
    engine = Replay("<answer>b</answer>")
    with dspy.context(lm=lm_of(engine), adapter=LayoutAdapter(LAYOUTS["xml_query_first"])):
        dspy.Predict(signature)(question="now?", history=dspy.History(messages=[{"question": "then?", "answer": "a"}]))
    assert [message.role for message in engine.requests[0].messages] == ["user", "assistant", "user"]


def test_images_are_refused() -> None:
    signature = dspy.Signature("image: dspy.Image -> answer")
    image = dspy.Image("data:image/png;base64,AAAA")
    with pytest.raises(ConfigError, match="is not text"):
        LayoutAdapter().format(signature, [], {"image": image})


def test_unknown_query_fields_are_a_config_error() -> None:
    with pytest.raises(ConfigError, match=r"'claim'.*Allowed: question, context"):
        LayoutAdapter(Layout(query_fields=("claim",))).format(QA, [], {})


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda adapter: pickle.loads(pickle.dumps(adapter))])
def test_it_copies_pickles_and_shows_its_layout(copied: Any) -> None:
    adapter = LayoutAdapter(LAYOUTS["label_bare"])
    again = copied(adapter)
    assert again.layout == adapter.layout
    assert again.format(QA, [], {"question": "q"}) == adapter.format(QA, [], {"question": "q"})
    assert "output_style=bare" in repr(again)
    assert isinstance(again, dspy.ChatAdapter)


def test_bootstrap_fewshot_collects_demos_under_a_layout() -> None:
    layout = LAYOUTS["xml_reasoning"]
    engine = Replay("<reasoning>r</reasoning>\n<answer>Rome</answer>")
    example = dspy.Example(question="q", context="c", answer="Rome").with_inputs("question", "context")
    with dspy.context(lm=lm_of(engine), adapter=LayoutAdapter(layout)):
        optimizer = dspy.BootstrapFewShot(lambda gold, guess, trace=None: gold.answer == guess.answer, max_rounds=1)
        program = optimizer.compile(dspy.Predict(QA), trainset=[example])
    demo = program.demos[0]
    messages = LayoutAdapter(layout).format(QA, program.demos, {"question": "q2", "context": "c2"})
    assert demo["reasoning"] == "r"
    assert messages[2]["content"] == "<reasoning>r</reasoning>\n<answer>Rome</answer>"


def test_signature_spec_equals_what_is_written_by_hand() -> None:
    spec = signature_spec(QA)
    assert [field.name for field in spec.inputs] == ["question", "context"]
    assert spec.instructions == "Answer the question."
    assert render_completion(LAYOUTS["label_bare"], spec, {"answer": "x"}) == "x"
