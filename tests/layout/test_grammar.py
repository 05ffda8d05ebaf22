"""Answer grammars: what they generate parses, what render writes they accept, in every output style."""

import random
import re
from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from promptopt.errors import ConfigError
from promptopt.layout.escape import output_marks
from promptopt.layout.gbnf.free_text import add_text
from promptopt.layout.gbnf.rules import Rules
from promptopt.layout.grammar import AnswerShape, answer_grammar
from promptopt.layout.parse import parse_completion
from promptopt.layout.presets import LAYOUTS
from promptopt.layout.render import answer_text, prefill_text, render_completion
from promptopt.layout.signature import FieldSpec, SignatureSpec, with_reasoning
from promptopt.layout.spec import Layout, OutputStyle
from promptopt.layout.unwritable import unwritable
from tests.contracts.test_layouts import AWKWARD, NO_INPUTS, PIECES, QA, TWO_OUTPUTS
from tests.layout.gbnf_sampler import Gbnf, samples

STYLES: tuple[OutputStyle, ...] = ("dspy", "xml", "json", "label", "bare")
OPTIONAL = SignatureSpec(
    "", (), (FieldSpec("first", optional=True), FieldSpec("second"), FieldSpec("third", optional=True))
)
ALL_OPTIONAL = SignatureSpec("", (), (FieldSpec("first", optional=True), FieldSpec("second", optional=True)))
JAPANESE = SignatureSpec("", (), (FieldSpec("答え"), FieldSpec("strasse_理由")))
SPECS = {
    "one": QA,
    "two": TWO_OUTPUTS,
    "awkward": AWKWARD,
    "own reasoning": NO_INPUTS,
    "optional": OPTIONAL,
    "all optional": ALL_OPTIONAL,
    "japanese": JAPANESE,
}
WRITABLE = [piece for piece in PIECES if piece != "\ud83d"]  # No model writes half a surrogate pair.
quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def layouts(styles: Sequence[OutputStyle] = STYLES) -> st.SearchStrategy[Layout]:
    return st.builds(Layout, output_style=st.sampled_from(styles), prefill=st.booleans(), reasoning=st.booleans())


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("prefill", [False, True])
def test_every_text_of_the_grammar_parses(name: str, style: OutputStyle, prefill: bool) -> None:
    for reasoning in (False, True):
        layout = Layout(output_style=style, prefill=prefill, reasoning=reasoning)
        spec = SPECS[name]
        start = prefill_text(layout, spec)
        for text in samples(answer_grammar(layout, spec), 25):
            assert text, "DSPy takes an empty completion for a failure"
            found = parse_completion(layout, spec, start + text)
            assert {field.name for field in spec.outputs if not field.optional} <= found.keys()


@pytest.mark.parametrize("name", LAYOUTS)
def test_presets_have_grammars(name: str) -> None:
    for spec in SPECS.values():
        for text in samples(answer_grammar(LAYOUTS[name], spec), 5, seed=1):
            parse_completion(LAYOUTS[name], spec, prefill_text(LAYOUTS[name], spec) + text)


@quick
@given(layouts(), st.sampled_from(list(SPECS.values())), st.data())
def test_what_render_writes_fits(layout: Layout, spec: SignatureSpec, data: st.DataObject) -> None:
    full = with_reasoning(layout, spec)
    outputs = {}
    for number, field in enumerate(full.outputs):
        needed = not field.optional or layout.output_style == "bare" or (layout.prefill and number == 0)
        if needed or data.draw(st.booleans()):
            outputs[field.name] = "".join(data.draw(st.lists(st.sampled_from(WRITABLE), max_size=6)))
    assume(outputs)
    text = render_completion(layout, spec, outputs).removeprefix(prefill_text(layout, spec))
    assume(text.strip())  # An empty completion is no answer, neither to DSPy nor to a grammar.
    assert Gbnf(answer_grammar(layout, spec)).accepts(text)


@pytest.mark.parametrize("style", STYLES)
def test_demos_fit(style: OutputStyle) -> None:
    layout = Layout(output_style=style, reasoning=True)
    full = with_reasoning(layout, TWO_OUTPUTS)
    grammar = Gbnf(answer_grammar(layout, TWO_OUTPUTS))
    values = {"label": "spam\nham", "why_so": " edge "}
    assert grammar.accepts(answer_text(layout, full, {"reasoning": "r", **values}))
    assert grammar.accepts(answer_text(layout, full, values)) == (style != "bare")


@pytest.mark.parametrize("style", ["dspy", "xml", "label", "bare"])
def test_text_is_kept_from_exactly_what_would_be_misread(style: OutputStyle) -> None:
    spec = SignatureSpec("", (), (FieldSpec("answer"), FieldSpec("Why_So"), FieldSpec("why_so_2")))
    marks = output_marks(style, spec)
    assert marks.guarded is not None
    rules = Rules()
    grammar = Gbnf(rules.text(add_text(rules, unwritable(style, spec))))
    rng = random.Random(0)
    pieces = [
        *WRITABLE,
        *"Why so|WHY SO:|why so 2 :|</why_so_2>|<Why_So>|[[ ## | ## ]]|wh|\u017f|\n---|\n [[ ## x ## ]]".split("|"),
    ]
    # What `escape` puts backslashes in front of, without those that are there already: they guard it.
    mark = re.compile(marks.guarded.pattern.replace(r"\\*", ""), marks.guarded.flags)
    refused = 0
    for _ in range(1500):
        text = rng.choice("a<[-Ww\\") + "".join(rng.choices(pieces, k=rng.randint(1, 6)))
        misread = any(mark.search(line) for line in text.split("\n"))
        assert grammar.accepts(text) == (not misread), repr(text)
        refused += misread
    assert refused > 20


@pytest.mark.parametrize(
    ("style", "completion"),
    [
        ("dspy", "[[ ## label ## ]]\nspam\n\n[[ ## why_so ## ]]\nx\n\n[[ ## completed ## ]]"),
        ("dspy", "[[ ## label ## ]]\nspam\n[[ ## why_so ## ]]\nx\n\n\n[[ ## completed ## ]]\n"),
        ("xml", "<label>spam\n</label>\n<why_so>x</why_so>"),
        ("json", '{"label": "spam", "why_so": "\\u65e5\\n"}'),
        ("label", "Label: spam\n\nWhy so: x\ny\n"),
        ("bare", "spam\n\n---\nx\n"),
    ],
)
def test_what_models_write_fits(style: OutputStyle, completion: str) -> None:
    assert Gbnf(answer_grammar(Layout(output_style=style), TWO_OUTPUTS)).accepts(completion)


@pytest.mark.parametrize(
    ("style", "completion"),
    [
        ("dspy", "Sure. [[ ## label ## ]]\nspam\n\n[[ ## why_so ## ]]\nx\n\n[[ ## completed ## ]]"),
        ("dspy", "[[ ## label ## ]]\nspam\n\n[[ ## why_so ## ]]\nx"),
        ("dspy", "[[ ## label ## ]]\nspam\n\n[[ ## why_so ## ]]\nx\n\n[[ ## completed ## ]]\n\n"),
        ("xml", "<label>spam</label>"),
        ("xml", "<label>spam</label>\n<why_so>x</why_so>\n"),
        ("xml", "<why_so>x</why_so>\n<label>spam</label>"),
        ("json", '{"label": "spam", "why_so": "x"} '),
        ("json", '{"label": "spam", "why_so": "x", "more": 1}'),
        ("json", '{"label": "spam", "why_so": "\\ud83d"}'),
        ("label", "Label: spam"),
        ("label", "Why so: x\nLabel: spam"),
        ("bare", "spam"),
        ("bare", ""),
    ],
)
def test_what_no_answer_is_does_not_fit(style: OutputStyle, completion: str) -> None:
    assert not Gbnf(answer_grammar(Layout(output_style=style), TWO_OUTPUTS)).accepts(completion)


@pytest.mark.parametrize("style", STYLES)
def test_shapes(style: OutputStyle) -> None:
    as_json = style == "json"
    shapes = {
        "label": AnswerShape(choices=('"a b"', "1") if as_json else ("a b", "</label>", "Label: x", " edge", "")),
        "why_so": AnswerShape(formats=("date",), schema={"type": "array", "items": {"type": "integer"}}),
    }
    layout = Layout(output_style=style)
    grammar = answer_grammar(layout, TWO_OUTPUTS, shapes)
    seen = set()
    for text in samples(grammar, 200):
        found = parse_completion(layout, TWO_OUTPUTS, text)
        seen.add(found["label"])
        assert str(found["why_so"])[0] in "[0123456789"
    assert seen == ({"a b", 1} if as_json else {"a b", "</label>", "Label: x", " edge", ""})


def test_an_answer_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="has no outputs"):
        answer_grammar(Layout(), SignatureSpec("", (FieldSpec("q"),), ()))
    with pytest.raises(ConfigError, match="no value but the empty one"):
        answer_grammar(Layout(), QA, {"answer": AnswerShape(choices=("",))})
