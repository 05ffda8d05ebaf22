"""Grammar: the answers that a layout reads, as GBNF for a model that must not write anything else.

What lives here: which text an answer consists of, per output style. Every text of the grammar parses, and what
`render_completion` writes for values of the right shape is a text of the grammar, so that what a model was shown, was
trained on and may write are one. It does not know types (answer_shapes), GBNF's notation (gbnf) or any model.

Narrower than the parser on purpose: fields in order, one spelling of every delimiter, no white space to get lost in.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from promptopt.errors import ConfigError
from promptopt.layout.escape import output_marks
from promptopt.layout.fields import COMPLETED, SEPARATOR, first_delimiter, json_text, labels
from promptopt.layout.gbnf.chars import literal
from promptopt.layout.gbnf.free_text import add_text
from promptopt.layout.gbnf.json_schema import SchemaRules
from promptopt.layout.gbnf.json_strings import FORMATS, JsonStrings
from promptopt.layout.gbnf.json_text import ONE_LINE, JsonText
from promptopt.layout.gbnf.rules import Rules
from promptopt.layout.signature import FieldSpec, SignatureSpec, with_reasoning
from promptopt.layout.spec import Layout, OutputStyle
from promptopt.layout.unwritable import tag_mark, unwritable


@dataclass(frozen=True)
class AnswerShape:
    """What the value of one output looks like: any of what is named here.

    Attributes:
        text: any text; in the json style any JSON string.
        choices: exactly these texts (before the layout's escape); in the json style: exactly this JSON.
        formats: texts of these formats of `gbnf.json_strings.FORMATS`.
        schema: JSON that fits this JSON schema.
    """

    text: bool = False
    choices: tuple[str, ...] = ()
    formats: tuple[str, ...] = ()
    schema: Mapping[str, Any] | None = None


ANY_TEXT = AnswerShape(text=True)


def answer_grammar(layout: Layout, spec: SignatureSpec, shapes: Mapping[str, AnswerShape] | None = None) -> str:
    """Return a GBNF grammar, with the rule `root`, of the completions that this layout asks for.

    A completion is what follows the prefill. It is never empty. White space stands only where `render` puts it, inside
    of free text, and behind it.

    Args:
        layout: the output style, prefill and reasoning count.
        spec: the signature, without the reasoning field that the layout may add.
        shapes: output name -> what its value looks like; an output that is not named is text.

    Raises:
        ConfigError: a shape cannot be expressed, or there is nothing to answer.
    """
    full = with_reasoning(layout, spec)
    if not full.outputs:
        raise ConfigError("The signature has no outputs, so no answer can be constrained. Give it an output field.")
    values = _Values(layout.output_style, full, shapes or {})
    whole = [values.field(output) for output in full.outputs]
    opening, separator, closing = _FRAMES[layout.output_style]
    if layout.output_style == "bare":
        return values.rules.text(_bare(whole, separator))
    items = [(field.whole, output.optional) for field, output in zip(whole, full.outputs, strict=True)]
    forced = any(not output.optional for output in full.outputs[1:])
    if layout.prefill:
        opening, items[0] = "", (whole[0].after_prefill if forced else whole[0].last_after_prefill, False)
    fields = values.rules.in_order("fields", items, separator, empty=False)
    root = " ".join(part for part in (opening, fields, closing) if part)
    return values.rules.text(root)


# A blank line, or its second half where the value, or the prefill in front of an empty value, has ended a line.
_BLANK_LINE = '"\\n" "\\n"?'

_FRAMES: Mapping[OutputStyle, tuple[str, str, str]] = {
    "dspy": ("", _BLANK_LINE, f'{_BLANK_LINE} {literal(COMPLETED.strip())} "\\n"?'),
    "xml": ("", literal("\n"), ""),
    "label": ("", literal("\n"), ""),
    "json": (literal("{"), literal(", "), literal("}")),
    "bare": ("", literal(f"\n{SEPARATOR}\n"), ""),
}
"""Output style -> what stands before, between and behind the fields."""


@dataclass(frozen=True)
class _Field:
    """One output as GBNF expressions.

    Attributes:
        value: name of the rule of its values, without the empty one.
        may_be_empty: whether the empty value is one.
        whole: with delimiters.
        after_prefill: what is left of `whole` behind the prefill.
        last_after_prefill: the same where nothing need follow, which makes the whole completion: not empty.
    """

    value: str
    may_be_empty: bool
    whole: str = ""
    after_prefill: str = ""
    last_after_prefill: str = ""


def _bare(fields: list[_Field], separator: str) -> str:
    if len(fields) == 1:
        return fields[0].value
    return f" {separator} ".join(field.value + "?" * field.may_be_empty for field in fields)


class _Values:
    """Adds the rules of values and delimiters of one style."""

    def __init__(self, style: OutputStyle, spec: SignatureSpec, shapes: Mapping[str, AnswerShape]) -> None:
        self.rules = Rules()
        self._style = style
        self._shapes = shapes
        self._labels = labels(spec)
        self._marks = output_marks(style, spec)
        self._forbidden = unwritable(style, spec)
        tags = [f"<{end}{output.name}>" for output in spec.outputs for end in ("", "/")] if style == "xml" else []
        strings = JsonStrings(self.rules, [tag_mark(tag, guarded=True) for tag in tags], tags)
        self._json = JsonText(self.rules, ONE_LINE, strings, self._marks.escape)
        self._text_name = ""

    def field(self, output: FieldSpec) -> _Field:
        """Return an output of this style."""
        options, may_be_empty = self._options(output)
        value = self.rules.add(output.name, " | ".join(options))
        some = f"{value}?" if may_be_empty else value
        before = literal(first_delimiter(self._style, output.name, self._labels))
        match self._style:
            case "dspy":
                marker = literal(f"[[ ## {output.name} ## ]]")
                whole = f'{marker} ( "\\n" {some} )?' if may_be_empty else f"{before} {value}"
                return _Field(value, may_be_empty, whole, some, some)
            case "xml":
                after = f"{some} {literal(f'</{output.name}>')}"
                return _Field(value, may_be_empty, f"{before} {after}", after, after)
            case "label":
                spaced = f'" " {value}'
                after = f"( {spaced} )?" if may_be_empty else spaced
                return _Field(value, may_be_empty, f"{before} {after}", after, spaced)
            case "json":
                name = literal(f"{json_text(output.name)}:")
                return _Field(value, False, f'{name} " " {value}', f'" " {value}', f'" " {value}')
            case "bare":
                return _Field(value, may_be_empty)

    def _options(self, output: FieldSpec) -> tuple[list[str], bool]:
        """Return expressions for the values that are not empty, and whether the empty one is allowed."""
        shape = self._shapes.get(output.name, ANY_TEXT)
        as_json = self._style == "json"
        if shape.text and not as_json:
            return [self._text()], True
        choices = shape.choices if as_json else tuple(self._marks.escape(choice) for choice in shape.choices)
        options = [self._json.strings.any()] if shape.text else []
        options += [literal(choice) for choice in choices if choice]
        for name in shape.formats:
            options.append(f'"\\"" {FORMATS[name]} "\\""' if as_json else FORMATS[name])
        if shape.schema is not None:
            options.append(SchemaRules(self._json, shape.schema, lenient=True).expression(shape.schema, output.name))
        if not options:
            raise ConfigError(f"The output {output.name!r} has no value but the empty one; nothing can be written.")
        return options, "" in choices

    def _text(self) -> str:
        if not self._text_name:
            self._text_name = add_text(self.rules, self._forbidden)
        return self._text_name
