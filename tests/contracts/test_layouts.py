"""What every Layout promises: checked for the presets, and for drawn layouts, signatures and values."""

import json

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from promptopt.layout.parse import parse_completion
from promptopt.layout.presets import LAYOUTS
from promptopt.layout.render import prefill_text, render_completion, render_messages
from promptopt.layout.signature import (
    REASONING,
    FieldSpec,
    SignatureSpec,
    ordered_inputs,
    query_field_names,
    with_reasoning,
)
from promptopt.layout.spec import Layout

QA = SignatureSpec(
    "Answer the question from the context.",
    (FieldSpec("context", desc="a passage"), FieldSpec("question")),
    (FieldSpec("answer", desc="a few words"),),
)
TWO_OUTPUTS = SignatureSpec("", (FieldSpec("text"),), (FieldSpec("label"), FieldSpec("why_so")))
# Names that begin one another, differ in case only, or are the styles' own words.
AWKWARD = SignatureSpec(
    "Read it.\n\n  Then answer.\n",
    (FieldSpec("query"), FieldSpec("page"), FieldSpec("hint")),
    (FieldSpec("answer"), FieldSpec("Answer"), FieldSpec("answer_2"), FieldSpec("completed")),
)
NO_INPUTS = SignatureSpec("Say something.", (), (FieldSpec("reasoning"), FieldSpec("line")))
SIGNATURES = (QA, TWO_OUTPUTS, AWKWARD, NO_INPUTS)

# What a value would have to contain to be misread in one of the styles.
PIECES = (
    *(" ", "\n", "\t", "\r\n", "\\", "\\\\", "a", "é日", "\u2028", "\x0b", "\x85", "\ud83d", "\x00", ":", "<", ">"),
    *("[[ ## answer ## ]]", "[[ ## completed ## ]]", "[[ ##", "---", "----", "Answer:", "answer :", "why so:"),
    *("<answer>", "</answer>", "<\\answer>", "</label>", "<answer", '{"answer": "x"}', "{", "}", "```json"),
    *("Why so:", "reasoning:", '"'),
)
values = st.one_of(st.lists(st.sampled_from(PIECES), max_size=8).map("".join), st.text(max_size=20))
ordinary = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Z"), exclude_characters="\\-:<["), min_size=1
)

layouts = st.builds(
    Layout,
    query_position=st.sampled_from(["declared", "before", "after", "both"]),
    field_style=st.sampled_from(["dspy", "xml", "markdown", "label", "json"]),
    instruction_place=st.sampled_from(["system", "user_start", "user_end", "both"]),
    descriptions=st.sampled_from(["none", "names", "full"]),
    structure=st.booleans(),
    demo_placement=st.sampled_from(["turns", "block"]),
    output_style=st.sampled_from(["dspy", "xml", "json", "label", "bare"]),
    reminder=st.booleans(),
    prefill=st.booleans(),
    reasoning=st.booleans(),
    system_role=st.sampled_from(["native", "merged"]),
    language=st.sampled_from(["en", "ja"]),
)
any_layout = st.one_of(st.sampled_from(list(LAYOUTS.values())), layouts)
signatures = st.sampled_from(SIGNATURES)
quick = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def filled(draw: st.DrawFn, texts: st.SearchStrategy[str]) -> tuple[Layout, SignatureSpec, dict, dict]:
    layout, spec = draw(any_layout), draw(signatures)
    inputs = {field.name: draw(texts) for field in spec.inputs}
    outputs = {field.name: draw(texts) for field in with_reasoning(layout, spec).outputs}
    return layout, spec, inputs, outputs


@quick
@given(filled(values))
@example((LAYOUTS["label_bare"], TWO_OUTPUTS, {}, {"label": "---\n\\---", "why_so": " \\ "}))
@example((LAYOUTS["xml_query_last"], QA, {}, {"answer": "</answer><\\answer>\\"}))
@example((LAYOUTS["dspy_chat"], QA, {}, {"answer": "\n  [[ ## answer ## ]]\n\\[[ ## x ## ]]\n"}))
def test_an_answer_reads_back_as_it_was_written(case: tuple[Layout, SignatureSpec, dict, dict]) -> None:
    layout, spec, _, outputs = case
    text = render_completion(layout, spec, outputs)
    assert parse_completion(layout, spec, text) == outputs
    assert text.startswith(prefill_text(layout, spec))


@quick
@given(filled(ordinary))
def test_ordinary_values_stand_in_the_answer_untouched(case: tuple[Layout, SignatureSpec, dict, dict]) -> None:
    layout, spec, _, outputs = case
    text = render_completion(layout, spec, outputs)
    for value in outputs.values():
        shown = json.dumps(value, ensure_ascii=False) if layout.output_style == "json" else value
        assert shown in text


@quick
@given(filled(values), st.integers(0, 3))
def test_a_prompt_is_a_valid_chat(case: tuple[Layout, SignatureSpec, dict, dict], demo_count: int) -> None:
    layout, spec, inputs, outputs = case
    demos = [{**inputs, **outputs}] * demo_count
    messages = render_messages(layout, spec, demos, inputs)
    roles = [message["role"] for message in messages]
    assert messages == render_messages(layout, spec, demos, inputs)
    assert all(message.keys() == {"role", "content"} and message["content"].strip() for message in messages)
    assert "system" not in roles[1:]
    turns = roles[1:] if roles[0] == "system" else roles
    assert turns == ["user", "assistant"] * (len(turns) // 2) + ["user"] * (len(turns) % 2)
    assert (roles[-1] == "assistant") == bool(prefill_text(layout, spec))
    if layout.system_role == "merged" or layout.instruction_place.startswith("user"):
        assert "system" not in roles


@quick
@given(filled(values))
def test_every_input_stands_in_the_prompt_verbatim(case: tuple[Layout, SignatureSpec, dict, dict]) -> None:
    layout, spec, inputs, _ = case
    messages = render_messages(layout, spec, [], inputs)
    last = [message for message in messages if message["role"] == "user"][-1]["content"]
    for value in inputs.values():
        assert (json.dumps(value, ensure_ascii=False) if layout.field_style == "json" else value) in last


@quick
@given(any_layout, signatures, st.booleans())
def test_the_query_stands_where_the_layout_says(layout: Layout, spec: SignatureSpec, as_demo: bool) -> None:
    assume(len(spec.inputs) > 1)
    inputs = {field.name: f"value-of-{field.name}" for field in spec.inputs}
    outputs = {field.name: "x" for field in spec.outputs}
    demos, shown = ([{**inputs, **outputs}], {}) if as_demo else ([], inputs)
    text = "\n".join(message["content"] for message in render_messages(layout, spec, demos, shown))
    query = set(query_field_names(layout, spec))
    seen = sorted((at, name) for name, value in inputs.items() for at in _positions(text, value))
    order = [name for _, name in seen]
    assert order == [field.name for field in ordered_inputs(layout, spec)]
    if layout.query_position in ("before", "both"):
        assert order[0] in query
    if layout.query_position in ("after", "both"):
        assert order[-1] in query
    assert len(order) == len(inputs) + (len(query) if layout.query_position == "both" else 0)


@quick
@given(any_layout)
def test_a_layout_survives_json(layout: Layout) -> None:
    again = Layout.model_validate_json(layout.model_dump_json())
    assert again == layout
    assert again.key() == layout.key()
    assert (layout.describe() == "dspy_chat") == (layout == Layout())


@quick
@given(filled(values), values)
def test_any_text_parses_or_raises_parse_error(case: tuple[Layout, SignatureSpec, dict, dict], text: str) -> None:
    from promptopt.errors import ParseError

    layout, spec, _, _ = case
    try:
        found = parse_completion(layout, spec, text)
    except ParseError as error:
        assert "starts with" in str(error)
    else:
        assert {field.name for field in spec.outputs} <= found.keys() | ({REASONING} if layout.reasoning else set())


@pytest.mark.parametrize("name", LAYOUTS)
def test_presets_have_lower_case_names_and_differ(name: str) -> None:
    assert name == name.lower().replace("-", "_")
    assert sum(layout == LAYOUTS[name] for layout in LAYOUTS.values()) == 1


def _positions(text: str, value: str) -> list[int]:
    found, start = [], text.find(value)
    while start >= 0:
        found.append(start)
        start = text.find(value, start + 1)
    return found
