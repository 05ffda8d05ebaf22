"""Constrained layouts inside DSPy: types of every kind, the call keyword, LMs that cannot, old layouts' identity."""

import asyncio
import datetime
import decimal
import enum
import uuid
from typing import Any, Literal, Optional

import dspy
import pydantic
import pytest
from dspy.lm15 import Message, Request, Response, Usage

from promptopt.candidate import Candidate
from promptopt.config.experiment import SearchConfig
from promptopt.errors import ConfigError
from promptopt.layout.dspy_adapter import LayoutAdapter, grammar_of
from promptopt.layout.predictor import bind_layout
from promptopt.layout.presets import LAYOUTS
from promptopt.layout.spec import Layout, OutputStyle
from promptopt.pools.pool import Pools
from promptopt.study.space import SearchSpace
from tests.layout.gbnf_sampler import Gbnf, samples

STYLES: tuple[OutputStyle, ...] = ("dspy", "xml", "json", "label", "bare")


class Place(pydantic.BaseModel):
    city: str
    kind: Literal["</a>", "b"] = "b"
    tags: list[str] = []
    inside: Optional["Place"] = None
    when: datetime.date | None = None
    prices: dict[int, decimal.Decimal] = {}
    share: float = pydantic.Field(0.5, ge=0, le=1)
    code: str = pydantic.Field("AB", pattern=r"^[A-Z<]{2,3}$")
    short: str = pydantic.Field("", max_length=4)
    either: int | str = 3


class Number(enum.Enum):
    ONE = 1
    TWO = 2


class Edgy(enum.Enum):
    WORDS = "x y"
    SPACE = " edge "
    TAG = "<a>"
    LINES = "Answer: a\n---\nb"


ANNOTATIONS: dict[str, Any] = {
    "int": int,
    "float": float,
    "bool": bool,
    "none": None,
    "optional int": Optional[int],  # noqa: UP045
    "optional str": str | None,
    "list": list[str],
    "bare list": list,
    "nested lists": list[list[int]],
    "dict": dict[str, int],
    "bare dict": dict,
    "any": Any,
    "enum of numbers": Number,
    "enum of texts": Edgy,
    "optional enum": Edgy | None,
    "literal": Literal[1, "1 ", True, None, ""],
    "optional literal": Literal["1", "b"] | None,
    "model": Place,
    "optional model": Place | None,
    "models": list[Place],
    "tuple": tuple[int, str],
    "set": set[int],
    "date": datetime.date,
    "optional datetime": datetime.datetime | None,
    "time": datetime.time,
    "duration": datetime.timedelta,
    "uuid": uuid.UUID,
    "decimal": decimal.Decimal,
    "number or truth": int | bool | None,
    "number or text": str | int | None,
    "number or date": int | datetime.date,
    "reasoning": dspy.Reasoning,
    "code": dspy.Code["python"],
    "tool calls": dspy.ToolCalls,
}


def signature(annotation: Any, *, first: bool = False) -> type[dspy.Signature]:
    fields = [("a", (annotation, dspy.OutputField())), ("answer", (str, dspy.OutputField()))]
    return dspy.Signature({"q": (str, dspy.InputField()), **dict(fields if first else fields[::-1])}, "Answer.")


@pytest.mark.parametrize("name", ANNOTATIONS)
def test_values_of_every_type_are_read(name: str) -> None:
    for style in STYLES:
        for first in (False, True):
            layout = Layout(output_style=style, prefill=first, constrained=True)
            task = signature(ANNOTATIONS[name], first=first)
            adapter = LayoutAdapter(layout)
            for text in samples(grammar_of(layout, task), 8):
                values = adapter.parse(task, text)
                assert values.keys() == {"a", "answer"}


VALUES: list[tuple[Any, Any]] = [
    (int, -12),
    (float, 1e-07),
    (bool, False),
    (Edgy, Edgy.SPACE),
    (Literal["a b", 2], 2),
    (Place | None, None),
    (list[str], ["<a>", "</\\a>", "</answer>", 'q"\n\\', "日本", "<\\\\/answer>"]),
    (
        Place,
        Place(
            city="[[ ## answer ## ]]",
            tags=["---", "<a>", "<\\a>"],
            prices={1: decimal.Decimal(2)},
            when=datetime.date(2024, 2, 29),
        ),
    ),
    (dict[str, int], {"<answer>": 3, "Answer: ": 1}),
    (decimal.Decimal, decimal.Decimal("-2.50")),
    (datetime.date, datetime.date(2024, 2, 29)),
    (datetime.datetime, datetime.datetime(2024, 2, 29, 1, 2, 3, 4)),
    (datetime.timedelta, datetime.timedelta(days=1, seconds=4, microseconds=5)),
    (str | None, " x\n"),
]


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("number", range(len(VALUES)))
def test_what_training_rows_hold_fits(style: OutputStyle, number: int) -> None:
    annotation, value = VALUES[number]
    task = signature(annotation)
    for layout in (Layout(output_style=style), Layout(output_style=style, reasoning=True)):
        row = LayoutAdapter(layout).format_finetune_data(
            task, [], {"q": "?"}, {"answer": " edge", "a": value, "reasoning": "r"}
        )
        text = row["messages"][-1]["content"]
        assert Gbnf(grammar_of(layout, task)).accepts(text), text
        found = LayoutAdapter(layout).parse(task, text)["a"]
        assert found == (int(value) if annotation is bool and not isinstance(found, bool) else value)


def test_limits_of_a_field_hold() -> None:
    class Rated(dspy.Signature):
        q: str = dspy.InputField()
        stars: int = dspy.OutputField(ge=1, le=5)
        share: float | None = dspy.OutputField(gt=0, lt=1)

    parsed = Gbnf(grammar_of(LAYOUTS["json_io"], Rated))
    assert parsed.accepts('{"stars": 5, "share": 0.5}')
    assert parsed.accepts('{"stars": 1, "share": null}')
    assert not parsed.accepts('{"stars": 6, "share": 0.5}')
    assert not parsed.accepts('{"stars": 5, "share": 1}')


@pytest.mark.parametrize("annotation", [int | str, bytes, Literal["a"] | str, dspy.Code["python"] | None, complex])
def test_types_that_dspy_may_misread_are_refused(annotation: Any) -> None:
    with pytest.raises(ConfigError, match=r"The output 'a' has the type .*constrained=False"):
        grammar_of(Layout(), signature(annotation))


class Engine:
    """Answers with one text and says that it can be constrained."""

    supported_params = frozenset({"grammar"})

    def __init__(self, text: str) -> None:
        self.text = text

    def complete(self, request: Request) -> Response:
        return Response(
            id=None,
            model="replay",
            message=Message.assistant(self.text),
            finish_reason="stop",
            usage=Usage(input_tokens=1, output_tokens=1, total_tokens=2),
        )

    def close(self) -> None:
        pass


class AsyncEngine(Engine):
    async def complete(self, request: Request) -> Response:  # type: ignore[override]
        return super().complete(request)

    async def aclose(self) -> None:
        pass


class Constrainable(dspy.LM):
    """Takes the call keyword `grammar`, which DSPy itself does not pass on to engines."""

    def __init__(self, text: str) -> None:
        self.grammars: list[str | None] = []
        super().__init__("replay", engine=Engine(text), async_engine=AsyncEngine(text), cache=False)

    def __call__(self, *args: Any, grammar: str | None = None, **kwargs: Any) -> Any:
        self.grammars.append(grammar)
        return super().__call__(*args, **kwargs)

    async def acall(self, *args: Any, grammar: str | None = None, **kwargs: Any) -> Any:
        self.grammars.append(grammar)
        return await super().acall(*args, **kwargs)


def test_the_grammar_reaches_the_lm() -> None:
    layout = LAYOUTS["xml_query_last"].model_copy(update={"constrained": True})
    task = dspy.Signature("q -> answer")
    lm = Constrainable("<answer>Rome</answer>")
    predict = dspy.Predict(task)
    bind_layout(predict, layout)
    with dspy.context(lm=lm):
        assert predict(q="?").answer == "Rome"
        assert asyncio.run(predict.acall(q="?")).answer == "Rome"
        bind_layout(predict, layout.model_copy(update={"constrained": False}))
        predict(q="?")
    assert lm.grammars == [grammar_of(layout, task)] * 2 + [None]
    assert Gbnf(lm.grammars[0] or "").accepts(lm.engine.text)


def test_a_grammar_of_the_call_is_not_replaced() -> None:
    predict = dspy.Predict("q -> answer")
    bind_layout(predict, Layout(constrained=True))
    with dspy.context(lm=Constrainable("x")), pytest.raises(ConfigError, match="brings a grammar of its own"):
        predict(q="?", config={"grammar": 'root ::= "x"'})


class Deaf(Engine):
    supported_params = frozenset({"temperature"})

    def complete(self, request: Request) -> Response:
        raise AssertionError("nothing must run")


@pytest.mark.parametrize("lm", [dspy.LM("replay", engine=Deaf(""), cache=False), dspy.LM("openai/some-model")])
def test_lms_that_cannot_be_constrained_are_refused(lm: dspy.LM) -> None:
    predict = dspy.Predict("q -> answer")
    bind_layout(predict, Layout(constrained=True))
    with dspy.context(lm=lm), pytest.raises(ConfigError, match=r"cannot constrain its output.*constrained=False"):
        predict(q="?")


def test_layouts_from_before_keep_their_identity() -> None:
    before = {
        name: value for name, value in Layout(constrained=True).model_dump(mode="json").items() if name != "constrained"
    }
    assert Layout().model_dump(mode="json") == before
    assert Layout.model_validate(before) == Layout()
    constrained = Layout(constrained=True)
    assert Layout.model_validate_json(constrained.model_dump_json()) == constrained
    assert constrained.key() != Layout().key()
    assert constrained.describe() == "dspy_chat with constrained=on"
    assert "constrained" not in Candidate(layout=Layout(), predictors={}).model_dump_json()


def test_it_can_be_searched() -> None:
    config = SearchConfig.model_validate({"layout": {"constrained": [True, False]}})
    space = SearchSpace.of_config(config, Pools(predictors={}))
    assert space.choices == {"constrained": (False, True)}
    assert space.untouched() == {"layout.constrained": False}
