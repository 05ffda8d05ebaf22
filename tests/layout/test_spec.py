"""Layout and SignatureSpec as values."""

import pydantic
import pytest

from promptopt.errors import ConfigError
from promptopt.layout.presets import LAYOUTS
from promptopt.layout.signature import FieldSpec, SignatureSpec, ordered_inputs, query_field_names
from promptopt.layout.spec import Layout


def signature(*names: str) -> SignatureSpec:
    return SignatureSpec("", tuple(FieldSpec(name) for name in names), (FieldSpec("answer"),))


def test_keys_are_stable_across_versions() -> None:
    # A study's results are filed under this key: changing it orphans them.
    assert Layout().key() == "854f031a98d15df9d3a03adf6c1ffae3705d54f4f4443c7930aa18275a403837"
    assert len({layout.key() for layout in LAYOUTS.values()}) == len(LAYOUTS)


def test_it_describes_what_differs() -> None:
    assert Layout().describe() == "dspy_chat"
    layout = Layout(query_position="after", query_fields=("a", "b"), reminder=False)
    assert layout.describe() == "dspy_chat with query_position=after, query_fields=a+b, reminder=off"


@pytest.mark.parametrize("changes", [{"query_position": "middle"}, {"unknown": 1}, {"schema_version": 2}])
def test_unknown_values_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(pydantic.ValidationError):
        Layout.model_validate(changes)


@pytest.mark.parametrize("names", [[], ["a", "a"]])
def test_query_fields_are_different_names(names: list[str]) -> None:
    with pytest.raises(pydantic.ValidationError, match="allowed are one or more different input field names"):
        Layout.model_validate({"query_fields": names})


def test_layouts_and_presets_are_frozen() -> None:
    with pytest.raises(pydantic.ValidationError):
        Layout().prefill = True  # type: ignore[misc]
    with pytest.raises(TypeError):
        LAYOUTS["new"] = Layout()  # type: ignore[index]


@pytest.mark.parametrize(
    ("names", "query"),
    [
        (("question", "context"), ("question",)),
        (("document", "Claim"), ("Claim",)),
        (("document", "text"), ("text",)),
        (("context", "question", "instruction"), ("question", "instruction")),
        ((), ()),
    ],
)
def test_the_query_is_found_by_its_name_or_its_place(names: tuple[str, ...], query: tuple[str, ...]) -> None:
    assert query_field_names(Layout(), signature(*names)) == query


def test_given_query_fields_count() -> None:
    spec = signature("context", "question")
    assert query_field_names(Layout(query_fields=("context",)), spec) == ("context",)
    with pytest.raises(ConfigError, match=r"'answer', which is no input of the signature\. Allowed: context, question"):
        query_field_names(Layout(query_fields=("answer",)), spec)


@pytest.mark.parametrize(
    ("position", "names"),
    [("declared", "abq"), ("before", "qab"), ("after", "abq"), ("both", "qabq")],
)
def test_order_of_inputs(position: str, names: str) -> None:
    layout = Layout.model_validate({"query_position": position})
    assert "".join(field.name for field in ordered_inputs(layout, signature("a", "b", "q"))) == names


def test_a_history_is_neither_query_nor_context() -> None:
    spec = SignatureSpec("", (FieldSpec("question"), FieldSpec("past", type_name="History")), (FieldSpec("answer"),))
    names = [field.name for field in ordered_inputs(Layout(query_position="both"), spec)]
    assert names.count("question") == 1
