"""The instruction block and the reminder: everything a prompt says about the fields, the format and the task.

What lives here: the block's three parts and the closing sentence, as text. It does not know in which message they
stand, and holds no sentences of its own (scaffold). Parts and wording of the "dspy" styles: DSPy's ChatAdapter.
"""

import textwrap
from collections.abc import Mapping, Sequence

from promptopt.layout.fields import delimit_inputs, delimit_outputs, labels
from promptopt.layout.scaffold import scaffold_of, speaks_dspy
from promptopt.layout.signature import HISTORY_TYPE, FieldSpec, SignatureSpec, ordered_inputs
from promptopt.layout.spec import Layout, OutputStyle

_NOTE = "# note: the value you produce "
_INDENT = "\n" + " " * 8


def instruction_block(layout: Layout, spec: SignatureSpec) -> str:
    """Return descriptions, structure and task in this order; parts that the layout leaves out are not there."""
    format_parts = [part for part in (descriptions(layout, spec), structure(layout, spec)) if part]
    task = task_description(layout, spec, alone=not format_parts)
    return ("\n" if speaks_dspy(layout) else "\n\n").join([*format_parts, *([task] if task else [])])


def descriptions(layout: Layout, spec: SignatureSpec) -> str:
    """Return what the block says about each field; empty if the layout asks for none."""
    words = scaffold_of(layout)
    inputs, outputs = _visible_inputs(layout, spec), spec.outputs
    if layout.descriptions == "names":
        return words.names_line.format(
            inputs=", ".join(_name(layout.field_style, field, spec) for field in inputs),
            outputs=", ".join(_name(layout.output_style, field, spec) for field in outputs),
        )
    if layout.descriptions == "none":
        return ""
    halves = ((words.inputs_heading, layout.field_style, inputs), (words.outputs_heading, layout.output_style, outputs))
    return "\n".join(
        f"{heading}\n{_described(layout, style, fields, spec)}"
        for heading, style, fields in halves
        if fields or speaks_dspy(layout)
    )


def structure(layout: Layout, spec: SignatureSpec) -> str:
    """Return the skeleton of input and answer; empty if the layout shows none."""
    if not layout.structure:
        return ""
    words = scaffold_of(layout)
    shown = labels(spec)
    inputs = [
        (field.name, _placeholder(field, layout.field_style == "json")) for field in _visible_inputs(layout, spec, True)
    ]
    outputs = [(field.name, _output_placeholder(layout, field)) for field in spec.outputs]
    input_form = delimit_inputs(layout.field_style, inputs, shown)
    output_form = delimit_outputs(layout.output_style, outputs, shown)
    if speaks_dspy(layout):
        return f"{words.form}\n\n{input_form.strip()}\n\n{output_form}".strip()
    parts = [words.input_form, input_form] if inputs else []
    return "\n\n".join([*parts, words.output_form, output_form.strip(), *_requirements(layout, spec)])


def task_description(layout: Layout, spec: SignatureSpec, alone: bool = False) -> str:
    """Return the signature's instructions as the block states them; `alone` if nothing stands before them."""
    words = scaffold_of(layout)
    instructions = textwrap.dedent(spec.instructions)
    if speaks_dspy(layout) and layout.structure and instructions.strip():
        return words.task.format(instructions=_INDENT.join(["", *instructions.splitlines()]))
    instructions = instructions.strip()
    if alone or speaks_dspy(layout) or not instructions:
        return instructions
    return words.task.format(instructions=instructions)


def reminder(layout: Layout, spec: SignatureSpec) -> str:
    """Return the sentence on the answer's format, whether or not the layout has one at the end of its prompts."""
    words = scaffold_of(layout)
    style = layout.output_style
    if style == "bare":
        joiner, template = words.bare_joiner, words.reminders["bare"]
        template = words.reminder_bare_only if len(spec.outputs) == 1 else template
    else:
        joiner, template = words.joiner, words.reminders[style]
    if style == "json":
        joiner = ", "
    return template.format(fields=joiner.join(_asked_for(layout, field, spec) for field in spec.outputs))


def _asked_for(layout: Layout, field: FieldSpec, spec: SignatureSpec) -> str:
    if layout.output_style == "dspy":
        return f"`[[ ## {field.name} ## ]]`{field.type_hint}"
    forms: Mapping[OutputStyle, str] = {
        "xml": f"<{field.name}>...</{field.name}>",
        "json": f'"{field.name}"',
        "label": f'"{labels(spec)[field.name]}: ..."',
        "bare": field.name.replace("_", " "),
    }
    return forms[layout.output_style] + (f" ({field.type_name})" if field.type_hint else "")


def _described(layout: Layout, style: str, fields: Sequence[FieldSpec], spec: SignatureSpec) -> str:
    words = scaffold_of(layout)
    lines = []
    for number, field in enumerate(fields, start=1):
        if speaks_dspy(layout):
            line = f"{number}. `{field.name}` ({field.type_name}): {field.desc}"
        else:
            line = f"{number}. {_name(style, field, spec)}"
            line += f" ({field.type_name})" if field.type_name != "str" else ""
            line += f": {field.desc}" if field.desc else ""
        constraints = words.constraints.format(constraints=field.constraints) if field.constraints else ""
        lines.append(f"{line}\n{constraints}" if constraints else line)
    return "\n".join(lines).strip()


def _visible_inputs(layout: Layout, spec: SignatureSpec, repeated: bool = False) -> tuple[FieldSpec, ...]:
    """The inputs that the block speaks of. ChatAdapter lists a History too, though it is shown as turns."""
    fields = ordered_inputs(layout, spec)
    if not speaks_dspy(layout):
        fields = tuple(field for field in fields if field.type_name != HISTORY_TYPE)
    return fields if repeated else tuple(dict.fromkeys(fields))


def _name(style: str, field: FieldSpec, spec: SignatureSpec) -> str:
    if style in ("label", "markdown", "bare"):
        return labels(spec)[field.name]
    return f"`{field.name}`"


def _placeholder(field: FieldSpec, as_json: bool) -> str:
    return f'"{{{field.name}}}"' if as_json and field.type_name == "str" else f"{{{field.name}}}"


def _output_placeholder(layout: Layout, field: FieldSpec) -> str:
    note = field.note if speaks_dspy(layout) else ""
    return _placeholder(field, layout.output_style == "json") + note


def _requirements(layout: Layout, spec: SignatureSpec) -> list[str]:
    """What typed outputs must look like, as lines under the skeleton: inside it they would be part of the form."""
    words = scaffold_of(layout)
    lines = [
        words.requirement.format(
            name=_name(layout.output_style, field, spec), requirement=field.note.strip().removeprefix(_NOTE)
        )
        for field in spec.outputs
        if field.note
    ]
    return ["\n".join(lines)] if lines else []
