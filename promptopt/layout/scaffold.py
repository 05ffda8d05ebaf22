"""Scaffold: every sentence of a prompt that comes neither from the signature nor from the data, per language.

What lives here: text. It does not know when or where a sentence is shown (block, render). `DSPY` is the wording of
DSPy's ChatAdapter; the others are terse, because a small model pays for each token of every prompt.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from promptopt.layout.spec import Language, Layout, OutputStyle


@dataclass(frozen=True)
class Scaffold:
    """The sentences of one language.

    Attributes:
        inputs_heading, outputs_heading: above the lists of described fields.
        names_line: one line in place of these lists; {inputs}, {outputs}.
        constraints: under a described field; {constraints}.
        form: opens the skeleton; may be empty.
        input_form, output_form: above the skeleton's halves; may be empty.
        requirement: what one typed output must look like; {name}, {requirement}.
        task: around the instruction when the block has other parts; {instructions}.
        reminders: last sentence of the user message, per output style; {fields}.
        reminder_bare_only: the same for a bare answer of one field; {fields}.
        joiner: between the {fields} of a reminder; in a bare answer {separator} stands between them too.
        example: above a demo in a block; {number}.
        reply: in front of a bare answer in a block.
    """

    inputs_heading: str
    outputs_heading: str
    names_line: str
    constraints: str
    form: str
    input_form: str
    output_form: str
    requirement: str
    task: str
    reminders: Mapping[OutputStyle, str]
    reminder_bare_only: str
    joiner: str
    bare_joiner: str
    example: str
    reply: str


_DSPY_REMINDER = (
    "Respond with the corresponding output fields, starting with the field {fields}, "
    "and then ending with the marker for `[[ ## completed ## ]]`."
)

EN = Scaffold(
    inputs_heading="Inputs:",
    outputs_heading="Outputs:",
    names_line="Inputs: {inputs}. Outputs: {outputs}.",
    constraints="Constraints: {constraints}",
    form="",
    input_form="The input has this form:",
    output_form="Answer in this form:",
    requirement="{name} {requirement}",
    task="Task: {instructions}",
    reminders=MappingProxyType(
        {
            "dspy": _DSPY_REMINDER,
            "xml": "Answer with {fields}.",
            "json": "Answer with one JSON object, keys: {fields}.",
            "label": "Answer with {fields}.",
            "bare": "Reply with the {fields}, nothing else.",
        }
    ),
    reminder_bare_only="Reply with the {fields} only.",
    joiner=", then ",
    bare_joiner=", then a line `---`, then the ",
    example="Example {number}:",
    reply="Reply: ",
)

DSPY = Scaffold(
    inputs_heading="Your input fields are:",
    outputs_heading="Your output fields are:",
    names_line="Your input fields are: {inputs}. Your output fields are: {outputs}.",
    constraints="Constraints: {constraints}",
    form="All interactions will be structured in the following way, with the appropriate values filled in.",
    input_form="",
    output_form="",
    requirement="{name} {requirement}",
    task="In adhering to this structure, your objective is: {instructions}",
    reminders=EN.reminders,
    reminder_bare_only=EN.reminder_bare_only,
    joiner=EN.joiner,
    bare_joiner=EN.bare_joiner,
    example=EN.example,
    reply=EN.reply,
)

JA = Scaffold(
    inputs_heading="入力:",
    outputs_heading="出力:",
    names_line="入力: {inputs}。出力: {outputs}。",
    constraints="制約: {constraints}",
    form="",
    input_form="入力の形式:",
    output_form="次の形式で答えてください:",
    requirement="{name}: {requirement}",
    task="課題: {instructions}",
    reminders=MappingProxyType(
        {
            "dspy": "{fields} の順に答え、最後に `[[ ## completed ## ]]` と書いてください。",
            "xml": "{fields} の形で答えてください。",
            "json": "キーが {fields} のJSONオブジェクトを1つだけ答えてください。",
            "label": "{fields} の形で答えてください。",
            "bare": "{fields} だけを答えてください。",
        }
    ),
    reminder_bare_only="{fields} だけを答えてください。",
    joiner="、",
    bare_joiner="、`---` の行、",
    example="例{number}:",
    reply="回答: ",
)

_BY_LANGUAGE: Mapping[Language, Scaffold] = MappingProxyType({"en": EN, "ja": JA})

# DSPy's own sentences on demos that lack fields; part of the "dspy" styles in every language, as its markers are.
INCOMPLETE_DEMO = "This is an example of the task, though some input or output fields are not supplied."
MISSING_OUTPUT = "Not supplied for this particular example. "


def speaks_dspy(layout: Layout) -> bool:
    """Return whether the layout uses ChatAdapter's own wording: its markers on both sides, in English."""
    return layout.field_style == layout.output_style == "dspy" and layout.language == "en"


def scaffold_of(layout: Layout) -> Scaffold:
    """Return the sentences that `layout` is written in."""
    return DSPY if speaks_dspy(layout) else _BY_LANGUAGE[layout.language]
