"""A signature as plain values, and back: same prompts, same kinds of answers, or a clear no."""

import enum
import json
from datetime import date
from typing import Any, Literal, Optional

import dspy
import pytest
from dspy.adapters.utils import parse_value
from pydantic import BaseModel, Field

from promptopt.deploy.signature_json import signature_of_record, signature_record
from promptopt.errors import ConfigError
from promptopt.layout.dspy_adapter import LayoutAdapter, grammar_of, signature_spec
from promptopt.layout.presets import LAYOUTS
from promptopt.layout.spec import Layout
from promptopt.records import SignatureRecord


class Colour(enum.Enum):
    RED = "red"
    GREEN = "green"


class Part(BaseModel):
    """One part."""

    name: str = Field(description="what it is called")
    count: int = Field(default=1, ge=0)
    colour: Colour = Colour.RED


class Order(BaseModel):
    parts: list[Part]
    due: date | None = None
    note: Optional[str] = Field(default=None, max_length=40)  # noqa: UP045


class Rich(dspy.Signature):
    """Read the order."""

    text: str = dspy.InputField(desc="the letter")
    limits: dict[str, int] = dspy.InputField()
    history: list = dspy.InputField(desc="")  # type: ignore[type-arg]
    order: Order = dspy.OutputField(desc="what is ordered")
    score: int = dspy.OutputField(ge=0, le=10, desc="0 to 10")
    kind: Literal["new", "repeat", "it's"] = dspy.OutputField()
    colour: Colour = dspy.OutputField()
    sure: bool = dspy.OutputField()
    price: float | None = dspy.OutputField()
    tags: list[str] = dspy.OutputField(default=["none"])
    table: dict[str, list[float]] = dspy.OutputField()
    anything: Any = dspy.OutputField()
    pair: tuple[int, str] = dspy.OutputField()


def again(signature: type[dspy.Signature]) -> type[dspy.Signature]:
    """Return the signature after a trip through text."""
    return signature_of_record(SignatureRecord.model_validate_json(signature_record(signature).model_dump_json()))


@pytest.mark.parametrize("name", LAYOUTS)
def test_prompts_are_the_same_in_every_layout(name: str) -> None:
    adapter = LayoutAdapter(LAYOUTS[name])
    inputs = {"text": "two bolts\n", "limits": {"bolt": 3}, "history": [1, "x"]}
    demo = {**inputs, "order": Order(parts=[Part(name="bolt")]), "score": 3, "kind": "new", "colour": Colour.RED}
    plain = json.loads(json.dumps({**demo, "order": {"parts": [{"name": "bolt", "count": 1, "colour": "red"}]}},
                                  default=lambda value: value.value))  # fmt: skip
    made = adapter.format(again(Rich), [plain], inputs)
    assert made == adapter.format(Rich, [plain], inputs)
    assert signature_spec(again(Rich)) == signature_spec(Rich)


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("score", "7"),
        ("kind", "'it's'"),
        ("sure", "True"),
        ("price", "null"),
        ("price", "1.5"),
        ("tags", '["a", "b"]'),
        ("table", '{"a": [1.0, 2]}'),
        ("anything", '{"a": null}'),
        ("pair", '[1, "b"]'),
    ],
)
def test_answers_are_read_as_before(field: str, text: str) -> None:
    then, now = Rich.output_fields[field], again(Rich).output_fields[field]
    assert parse_value(text, now.annotation) == parse_value(text, then.annotation)
    assert now.is_required() == then.is_required()
    assert now.get_default() == then.get_default()


def test_models_and_enums_come_back_as_models_and_enums() -> None:
    text = '{"parts": [{"name": "bolt", "colour": "green"}], "due": "2026-01-31"}'
    order = parse_value(text, again(Rich).output_fields["order"].annotation)
    assert type(order).__name__ == "Order"
    assert order.parts[0].count == 1
    assert order.parts[0].colour.value == "green"
    assert order.due == date(2026, 1, 31)
    assert order.model_dump(mode="json") == parse_value(text, Order).model_dump(mode="json")
    with pytest.raises(ValueError, match="count"):
        parse_value('{"parts": [{"name": "bolt", "count": -1}]}', type(order))
    assert parse_value("red", again(Rich).output_fields["colour"].annotation) == "red"


def test_constrained_layouts_keep_their_grammar() -> None:
    signature = Rich.delete("anything").delete("pair").delete("history")
    layout = Layout(output_style="json", constrained=True)
    assert grammar_of(layout, again(signature)) == grammar_of(layout, signature)


def test_reasoning_and_history_are_dspys_own() -> None:
    class Chat(dspy.Signature):
        """Answer."""

        history: dspy.History = dspy.InputField()
        question: str = dspy.InputField()
        answer: str = dspy.OutputField()

    assert again(Chat).input_fields["history"].annotation is dspy.History
    turns = dspy.History(messages=[{"question": "a", "answer": "b"}])
    adapter = LayoutAdapter(LAYOUTS["xml_query_last"])
    assert adapter.format(again(Chat), [], {"history": turns, "question": "c"}) == adapter.format(
        Chat, [], {"history": turns, "question": "c"}
    )


class Node(BaseModel):
    children: list["Node"] = []


@pytest.mark.parametrize(
    ("annotation", "said"),
    [
        (dspy.Image, "DSPy's own types"),
        (Node, "refers to itself"),
        (dict[int, str], "does not say everything"),
        (bytes, "no Python type"),
    ],
)
def test_a_type_that_a_file_cannot_carry_is_refused(annotation: Any, said: str) -> None:
    signature = dspy.Signature("question -> answer").with_updated_fields("answer", type_=annotation)
    with pytest.raises(ConfigError, match=said) as caught:
        signature_record(signature)
    assert "The output 'answer'" in str(caught.value)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "title": "M", "properties": {"__base__": {"type": "string"}}},
        {"type": "object", "title": "M", "properties": {"_hidden": {"type": "string"}}},
        {"type": "string", "pattern": "("},
        {"$ref": "#/$defs/none"},
        {"enum": [[1]]},
        {"x-dspy-type": "os.system"},
    ],
)
def test_a_strange_schema_in_a_file_is_refused(schema: dict[str, Any]) -> None:
    field = {"name": "answer", "kind": "output", "value_schema": schema, "type_name": "str"}
    with pytest.raises(ConfigError):
        signature_of_record(SignatureRecord.model_validate({"name": "S", "instructions": "", "fields": [field]}))
