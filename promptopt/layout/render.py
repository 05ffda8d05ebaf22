"""Render: a layout, a signature, demos and inputs become chat messages; outputs become the answer's text.

What lives here: which text stands in which message. It does not know the sentences (scaffold), the delimiters
(fields), the guards of values (escape), any model, or any chat template. With `Layout()` the messages are those of
DSPy's ChatAdapter, character for character.
"""

from collections.abc import Mapping, Sequence

from pydantic import JsonValue

from promptopt.errors import DataError
from promptopt.layout.block import instruction_block, reminder
from promptopt.layout.escape import output_marks
from promptopt.layout.fields import delimit_inputs, delimit_outputs, first_delimiter, json_text, labels, value_text
from promptopt.layout.scaffold import INCOMPLETE_DEMO, MISSING_OUTPUT, scaffold_of
from promptopt.layout.signature import REASONING, SignatureSpec, ordered_inputs, with_reasoning
from promptopt.layout.spec import Layout

Fields = Mapping[str, JsonValue]
Message = dict[str, str]


def render_messages(
    layout: Layout,
    spec: SignatureSpec,
    demos: Sequence[Fields],
    inputs: Fields,
    history: Sequence[Message] = (),
) -> list[Message]:
    """Return the prompt as [{"role": "system" | "user" | "assistant", "content": text}, ...].

    Inputs are written verbatim (in the json style: as JSON); an input without a value is left out. Demos that lack
    fields come first, demos without any input or any output are dropped, as in DSPy. With `layout.prefill` the last
    message is the assistant's and holds `prefill_text`: the model continues it.

    Args:
        layout: what to do.
        spec: the signature, without the reasoning field that the layout may add.
        demos: field name -> value, inputs and outputs together.
        inputs: input name -> value.
        history: messages of earlier turns, already rendered; they stand between the demos and the last user message.

    Raises:
        ConfigError: `layout.query_fields` names a field that is not an input.
    """
    full = with_reasoning(layout, spec)
    pairs = _demo_pairs(layout, full, demos)
    block = instruction_block(layout, full)
    turns: list[Message] = []
    if layout.demo_placement == "block":
        block = _joined([block, *_demo_texts(layout, pairs)])
    else:
        for question, answer in pairs:
            turns += [_message("user", question), _message("assistant", answer)]
    messages = [*turns, *history, _message("user", _last_user_text(layout, full, inputs, block))]
    if layout.instruction_place in ("system", "both") and block.strip():
        messages = _with_system(layout, block, messages)
    prefill = prefill_text(layout, spec)
    return [*messages, _message("assistant", prefill)] if prefill else messages


def render_completion(layout: Layout, spec: SignatureSpec, outputs: Fields) -> str:
    """Return the whole text of the answer, prefill included, so that `parse.parse_completion` reads `outputs` back.

    Outputs without a value are left out, unless the answer could then not be read back or not follow the prefill.

    Raises:
        DataError: `outputs` lacks the field that the prefill opens, or any field of a bare answer, or all fields.
    """
    full = with_reasoning(layout, spec)
    names = [field.name for field in full.outputs]
    given = [name for name in names if name in outputs]
    needed = names if layout.output_style == "bare" else names[:1] if layout.prefill else []
    missing = [name for name in needed if name not in outputs]
    if missing or not given:
        raise DataError(
            f"An answer in this layout needs the field{'s' * (len(missing) > 1)} "
            f"{', '.join(missing or names)}; the values given are for: {', '.join(outputs) or '(nothing)'}. "
            "Add the values, or use a layout without " + ("reasoning" if missing == [REASONING] else "prefill") + "."
        )
    return answer_text(layout, full, outputs)


def prefill_text(layout: Layout, spec: SignatureSpec) -> str:
    """Return what the layout writes for the model at the start of its answer; empty if nothing."""
    full = with_reasoning(layout, spec)
    if not layout.prefill or not full.outputs:
        return ""
    return first_delimiter(layout.output_style, full.outputs[0].name, labels(full))


def inputs_text(layout: Layout, spec: SignatureSpec, inputs: Fields) -> str:
    """Return the inputs that have a value, in the layout's order and style; empty if none has."""
    fields = ordered_inputs(layout, spec, frozenset(inputs))
    if not fields:
        return ""
    as_json = layout.field_style == "json"
    pairs = [
        (field.name, json_text(inputs[field.name]) if as_json else value_text(field, inputs[field.name]))
        for field in fields
    ]
    return delimit_inputs(layout.field_style, pairs, labels(spec))


def answer_text(layout: Layout, spec: SignatureSpec, outputs: Fields, missing: str | None = None) -> str:
    """Return an answer's text, as `render_completion`, without its checks.

    Args:
        layout: what to do.
        spec: the signature with the reasoning field that the layout may add.
        outputs: output name -> value.
        missing: stands for outputs without a value; with None they are left out, as is the layout's own reasoning.
    """
    marks = output_marks(layout.output_style, spec)
    pairs = []
    for field in spec.outputs:
        own_reasoning = layout.reasoning and field.name == REASONING
        if field.name in outputs and not (own_reasoning and outputs[field.name] is None):
            value = outputs[field.name]
            text = json_text(value) if layout.output_style == "json" else marks.escape(value_text(field, value))
            pairs.append((field.name, text))
        elif missing is not None and not own_reasoning:
            pairs.append((field.name, missing))
    return delimit_outputs(layout.output_style, pairs, labels(spec))


def _last_user_text(layout: Layout, spec: SignatureSpec, inputs: Fields, block: str) -> str:
    parts = [block] if layout.instruction_place == "user_start" else []
    parts.append(inputs_text(layout, spec, inputs))
    if layout.instruction_place == "user_end":
        parts.append(block)
    if layout.instruction_place == "both":
        parts.append(spec.instructions.strip())
    if layout.reminder:
        parts.append(reminder(layout, spec))
    # A chat template wants a user message, so one with nothing to say asks for the answer.
    return _joined(parts) or reminder(layout, spec)


def _with_system(layout: Layout, block: str, messages: Sequence[Message]) -> list[Message]:
    if layout.system_role == "native":
        return [_message("system", block), *messages]
    first = next(index for index, message in enumerate(messages) if message["role"] == "user")
    merged = {**messages[first], "content": _joined([block, messages[first]["content"]])}
    return [*messages[:first], merged, *messages[first + 1 :]]


def _demo_pairs(layout: Layout, spec: SignatureSpec, demos: Sequence[Fields]) -> list[tuple[str, str]]:
    """Return (inputs, answer) of each demo that is shown, demos with missing fields first."""
    complete, incomplete = [], []
    for demo in demos:
        if _is_complete(layout, spec, demo):
            complete.append(_demo_pair(layout, spec, demo, ""))
        elif any(f.name in demo for f in spec.inputs) and any(f.name in demo for f in spec.outputs):
            incomplete.append(_demo_pair(layout, spec, demo, INCOMPLETE_DEMO))
    # A bare answer can be empty; an empty message breaks chat templates and teaches nothing.
    return [(question, answer) for question, answer in incomplete + complete if question.strip() and answer.strip()]


def _is_complete(layout: Layout, spec: SignatureSpec, demo: Fields) -> bool:
    names = {field.name for field in spec.inputs + spec.outputs}
    if layout.reasoning:
        # Demos taken from data have no reasoning; that does not make them half demos.
        names -= {REASONING}
    return all(demo.get(name) is not None for name in names)


def _demo_pair(layout: Layout, spec: SignatureSpec, demo: Fields, prefix: str) -> tuple[str, str]:
    question = inputs_text(layout, spec, demo)
    if layout.field_style == "dspy":
        question = f"{prefix}\n\n{question}".strip()
    # Told in words that a field is missing, a small model learns the words: only the "dspy" style does it, as DSPy.
    missing = MISSING_OUTPUT if layout.output_style == "dspy" else None
    return question, answer_text(layout, spec, demo, missing)


def _demo_texts(layout: Layout, pairs: Sequence[tuple[str, str]]) -> list[str]:
    words = scaffold_of(layout)
    gap = "\n" if layout.field_style == "label" else "\n\n"
    reply = words.reply if layout.output_style == "bare" else ""
    return [
        f"{words.example.format(number=number)}\n\n{question}{gap}{reply}{answer.strip()}"
        for number, (question, answer) in enumerate(pairs, start=1)
    ]


def _joined(parts: Sequence[str]) -> str:
    return "\n\n".join(part for part in parts if part.strip())


def _message(role: str, content: str) -> Message:
    return {"role": role, "content": content}
