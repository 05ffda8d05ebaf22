"""A signature as plain values: what rendering and parsing need to know of a dspy.Signature, and nothing of DSPy itself.

What lives here: field and signature values, which inputs are the query, the order in which inputs are shown, and the
reasoning field. It does not know how fields are written down.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from promptopt.errors import ConfigError
from promptopt.layout.spec import Layout

REASONING = "reasoning"
HISTORY_TYPE = "History"

# Inputs with these names carry what is asked; everything beside them is what it is asked about.
QUERY_NAMES = frozenset(
    (
        *("question", "query", "instruction", "request", "task", "sentence", "claim", "problem", "utterance"),
        *("message", "user_question", "user_query", "user_request", "user_message"),
    )
)

_REASONING_DESCRIPTION = {"en": "think step by step", "ja": "順を追って考える"}


@dataclass(frozen=True)
class FieldSpec:
    """One field of a signature.

    Attributes:
        name: Python identifier.
        desc: description for the model; empty when there is none.
        type_name: as a reader of Python would write it, e.g. "list[str]".
        constraints: DSPy's text of pydantic constraints, e.g. "greater than or equal to: 0".
        note: what DSPy appends to an output's placeholder, e.g. "        # note: the value you produce must be ...".
        type_hint: what DSPy appends to an output's marker in its reminder, with a leading space.
        optional: whether an answer without this output is acceptable.
    """

    name: str
    desc: str = ""
    type_name: str = "str"
    constraints: str = ""
    note: str = ""
    type_hint: str = ""
    optional: bool = False


@dataclass(frozen=True)
class SignatureSpec:
    """Instructions, inputs and outputs of one signature, in declared order."""

    instructions: str
    inputs: tuple[FieldSpec, ...]
    outputs: tuple[FieldSpec, ...]


def query_field_names(layout: Layout, spec: SignatureSpec) -> tuple[str, ...]:
    """Return the names of the inputs that are the query, in declared order.

    Without `layout.query_fields`: inputs with a well-known name (question, query, instruction, ...), else the last
    declared input.

    Raises:
        ConfigError: `layout.query_fields` names a field that is not an input.
    """
    allowed = [field.name for field in spec.inputs if field.type_name != HISTORY_TYPE]
    if layout.query_fields is not None:
        for name in layout.query_fields:
            if name not in allowed:
                raise ConfigError(
                    f"The layout's query_fields names {name!r}, which is no input of the signature. "
                    f"Allowed: {', '.join(allowed) or '(the signature has no inputs)'}."
                )
        return tuple(name for name in allowed if name in layout.query_fields)
    known = tuple(name for name in allowed if name.lower() in QUERY_NAMES)
    return known or tuple(allowed[-1:])


def ordered_inputs(layout: Layout, spec: SignatureSpec, present: frozenset[str] | None = None) -> tuple[FieldSpec, ...]:
    """Return the inputs in the order in which the layout shows them; "both" repeats the query after the context.

    Args:
        layout: its query_position and query_fields decide.
        spec: the signature.
        present: names of the inputs that have a value; None for all. A query without any context is shown once.

    Raises:
        ConfigError: as `query_field_names`.
    """
    names = query_field_names(layout, spec)
    shown = tuple(field for field in spec.inputs if present is None or field.name in present)
    if layout.query_position == "declared":
        return shown
    query = tuple(field for field in shown if field.name in names)
    context = tuple(field for field in shown if field.name not in names)
    if layout.query_position == "after":
        return context + query
    if layout.query_position == "before" or not has_context(context):
        return query + context
    return query + context + query


def has_context(fields: Sequence[FieldSpec]) -> bool:
    """Return whether any of `fields` is shown inside a message; a History is shown as turns of its own."""
    return any(field.type_name != HISTORY_TYPE for field in fields)


def with_reasoning(layout: Layout, spec: SignatureSpec) -> SignatureSpec:
    """Return `spec` with a `reasoning` output in front where the layout asks for one and the signature has none."""
    if not layout.reasoning or any(field.name == REASONING for field in spec.inputs + spec.outputs):
        return spec
    # Optional: it is the layout's means, not the task's end; an answer that comes without it is still an answer.
    reasoning = FieldSpec(REASONING, desc=_REASONING_DESCRIPTION[layout.language], optional=True)
    return replace(spec, outputs=(reasoning, *spec.outputs))
