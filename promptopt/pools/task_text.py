"""A task in words, for the model that is to write its instructions: fields, steps, examples, what the data shows.

Knows programs and rows; asks nothing.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import median

import dspy
from pydantic import JsonValue

from promptopt.layout.dspy_adapter import signature_spec
from promptopt.layout.signature import FieldSpec
from promptopt.pools.coverage import as_text
from promptopt.records import DataRow

LONGEST_VALUE = 600
"""Characters of one field of one example; of longer values the middle is left out."""

_LARGEST_CLOSED_SET = 20
_ROWS_PER_VALUE = 4


def task_of(program: dspy.Module, name: str) -> str:
    """Return what predictor `name` is given and must produce and, in a program of several, where it stands."""
    predictors = dict(program.named_predictors())
    spec = signature_spec(predictors[name].signature)
    lines = ["It is given:", *map(_field_line, spec.inputs), "It must produce:", *map(_field_line, spec.outputs)]
    if len(predictors) > 1:
        steps = [f"- {other}: {_arrow(predictor)}" for other, predictor in predictors.items()]
        lines += [f"It is the step `{name}` of a program with these steps:", *steps]
    return "\n".join(lines)


def program_inputs(program: dspy.Module) -> set[str]:
    """Return the fields that some predictor is given and none produces; what else a row has belongs to its answer."""
    signatures = [predictor.signature for _, predictor in program.named_predictors()]
    given = {name for signature in signatures for name in signature.input_fields}
    return given - {name for signature in signatures for name in signature.output_fields}


def answers_of(rows: Sequence[DataRow], program: dspy.Module) -> list[tuple[str, JsonValue]]:
    """Return (owner, value) of every field of the rows that a program does not start from, as `Answers` takes them."""
    inputs = program_inputs(program)
    return [(row.group or row.id, value) for row in rows for name, value in row.fields.items() if name not in inputs]


def example_text(values: Mapping[str, JsonValue]) -> str:
    """Return one line per field, long values shortened."""
    return "\n".join(f"{name}: {shortened(as_text(value))}" for name, value in values.items())


def shortened(text: str) -> str:
    """Return `text` with blanks as single spaces; of a long one, both ends."""
    text = " ".join(text.split())
    half = LONGEST_VALUE // 2
    return text if len(text) <= LONGEST_VALUE else f"{text[:half]} […] {text[-half:]}"


def findings(rows: Sequence[DataRow], outputs: Sequence[str]) -> str:
    """Return what the rows show of each output: the values of a small closed set, or how long answers are."""
    return "\n".join(line for name in outputs if (line := _finding(name, [row.fields.get(name) for row in rows])))


def _finding(name: str, values: Sequence[JsonValue]) -> str:
    texts = [as_text(value).strip() for value in values if value not in (None, "")]
    if not texts:
        return ""
    counts = Counter(texts)
    if len(counts) <= min(_LARGEST_CLOSED_SET, len(texts) // _ROWS_PER_VALUE):
        return f"- {name} is always one of: {', '.join(text for text, _ in sorted(counts.items()))}"
    lengths = sorted(len(text) for text in texts)
    return f"- {name} has {round(median(lengths))} characters in the median, and {lengths[-1]} at most"


def _field_line(field: FieldSpec) -> str:
    kind = "" if field.type_name == "str" else f" ({field.type_name})"
    desc = "" if field.desc in ("", f"${{{field.name}}}") else f": {field.desc}"
    return f"- {field.name}{kind}{desc}"


def _arrow(predictor: dspy.Predict) -> str:
    signature = predictor.signature
    return f"{', '.join(signature.input_fields)} -> {', '.join(signature.output_fields)}"
