"""What each reader accepts beyond its own style's text, and what it refuses; the escape, value by value."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptopt.errors import ParseError
from promptopt.layout.escape import escape_edges, unescape_edges
from promptopt.layout.parse import parse_completion
from promptopt.layout.render import render_completion
from promptopt.layout.signature import FieldSpec, SignatureSpec
from promptopt.layout.spec import Layout, OutputStyle

ONE = SignatureSpec("", (), (FieldSpec("answer"),))
TWO = SignatureSpec("", (), (FieldSpec("answer"), FieldSpec("why_so")))


def parsed(style: OutputStyle, text: str, spec: SignatureSpec = TWO) -> dict[str, object]:
    return dict(parse_completion(Layout(output_style=style), spec, text))


@pytest.mark.parametrize(
    ("style", "text"),
    [
        ("xml", "Sure.\n<answer>\n a \n</answer> and <why_so>b</why_so>."),
        ("xml", "<why_so>b</why_so><answer>a</answer><answer>again</answer>"),
        ("xml", "<answer>a</answer>\n<why_so>b</why_so>\n<answer>a</ans"),
        ("label", "Sure.\nanswer: a\nWHY SO : b"),
        ("label", "  Answer:\na\nWhy so: b\nAnswer: again"),
        ("json", 'Sure:\n```json\n{"why_so": "b", "answer": "a", "more": [1]}\n```'),
        ("json", '{"answer": "first"} {"answer": "a", "why_so": "b"}'),
        ("json", '{"result": {"answer": "a", "why_so": "b"}}'),
        ("json", '{ {x} {"answer": "a", "why_so": "b"}'),
        ("bare", "a\n\n --- \n\nb\n"),
        ("dspy", "x\n[[ ## why_so ## ]] b\n[[ ## answer ## ]]\na\n[[ ## end ## ]]\nx"),
    ],
)
def test_tolerated(style: OutputStyle, text: str) -> None:
    assert parsed(style, text) == {"answer": "a", "why_so": "b"}


@pytest.mark.parametrize(
    ("style", "text", "problem"),
    [
        ("xml", "<answer>a</answer>", r"lacks why_so \(found: answer\)"),
        ("xml", "<answer>a</answer><why_so>b", "opens <why_so> and never closes it"),
        ("xml", '{"answer": "a", "why_so": "b"}', "found no field at all"),
        ("xml", "<Answer>a</Answer><why_so>b</why_so>", "lacks answer"),
        ("label", "Answer: a", "lacks why_so"),
        ("label", "The Answer: a\nWhy so: b", "lacks answer"),
        ("label", "", "found no field at all"),
        ("json", '{"answer": "a"}', "lacks why_so"),
        ("json", '{"answer": "a", "why_so": "b', "lacks answer, why_so"),
        ("json", "[1, 2]", "lacks answer, why_so"),
        ("json", '{"a":' * 5000, "lacks answer, why_so"),
        ("bare", "a\n----\nb", "lacks why_so"),
        ("dspy", "Answer: a\nWhy so: b", "found no field at all"),
    ],
)
def test_refused(style: OutputStyle, text: str, problem: str) -> None:
    with pytest.raises(ParseError, match=problem) as caught:
        parsed(style, text)
    assert f"output style {style!r}" in str(caught.value)
    assert repr(text[:160])[1:-1] in str(caught.value)


def test_values_of_a_json_answer_keep_their_types() -> None:
    assert parsed("json", '{"answer": 3, "why_so": [true, null]}') == {"answer": 3, "why_so": [True, None]}


def test_the_last_bare_field_takes_further_separators() -> None:
    assert parsed("bare", "a\n---\nb\n---\nc") == {"answer": "a", "why_so": "b\n---\nc"}


def test_a_bare_answer_is_the_whole_text() -> None:
    assert parsed("bare", "\n[[ ## answer ## ]]\n---\n", ONE) == {"answer": "[[ ## answer ## ]]\n---"}


@pytest.mark.parametrize(
    ("style", "value", "written"),
    [
        ("xml", "if a < b", "<answer>if a < b</answer>"),
        ("xml", "<b>bold</b> \\n", "<answer><b>bold</b> \\n</answer>"),
        ("xml", "<answer>", "<answer><\\answer></answer>"),
        ("xml", "</\\answer>", "<answer></\\answer></answer>"),
        ("xml", " x", "<answer>\\ x</answer>"),
        ("label", "see:\n  Answer: no", "Answer: see:\n  \\Answer: no"),
        ("label", "no Answer: here", "Answer: no Answer: here"),
        ("label", "", "Answer:"),
        ("bare", "a\n---\n", "a\n---\n\\"),
        ("bare", "C:\\", "C:\\"),
        ("dspy", "[[ ## x ## ]]", "[[ ## answer ## ]]\n\\[[ ## x ## ]]\n\n[[ ## completed ## ]]\n"),
        ("json", " </answer>\n", '{"answer": " </answer>\\n"}'),
    ],
)
def test_only_what_would_be_misread_is_escaped(style: OutputStyle, value: str, written: str) -> None:
    text = render_completion(Layout(output_style=style), ONE, {"answer": value})
    assert text == written
    assert parsed(style, text, ONE) == {"answer": value}


@given(st.text(alphabet="\\ \n\ta\u3000", max_size=8))
def test_edges_are_reversible_and_never_white(text: str) -> None:
    guarded = escape_edges(text)
    assert guarded == guarded.strip()
    assert unescape_edges(guarded) == text
    assert unescape_edges(f" \n{guarded}\t") == text
