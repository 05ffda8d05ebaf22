"""Fields as text: how one value is written, how named values are delimited, what a field is called in each style.

What lives here: the input and output delimiters. It does not know the order of fields, which message they stand in,
or how an answer's values are guarded against being misread (escape).
"""

import itertools
import json
import re
from collections.abc import Mapping, Sequence

from pydantic import JsonValue

from promptopt.layout.signature import FieldSpec, SignatureSpec
from promptopt.layout.spec import FieldStyle, OutputStyle

COMPLETED = "[[ ## completed ## ]]\n"
SEPARATOR = "---"

# (field name, text of its value). A JSON object's text is JSON.
Pairs = Sequence[tuple[str, str]]


def labels(spec: SignatureSpec) -> dict[str, str]:
    """Return field name -> label: underscores as spaces, first letter upper case; raw names if two would be alike."""
    names = [field.name for field in spec.inputs + spec.outputs]
    shown = {name: _label(name) for name in names}
    return {name: name for name in names} if _any_alike(list(shown.values())) else shown


def _any_alike(texts: Sequence[str]) -> bool:
    """Return whether a case-insensitive pattern for one of `texts` fits another one."""
    return any(re.fullmatch(re.escape(text), other, re.IGNORECASE) for text, other in itertools.combinations(texts, 2))


def _label(name: str) -> str:
    words = name.replace("_", " ").strip() or name
    return words[0].upper() + words[1:]


def value_text(field: FieldSpec, value: JsonValue) -> str:
    """Return `value` as text: a str verbatim, lists and objects as JSON, anything else as Python prints it.

    A list in a str field becomes DSPy's numbered list.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, list) and field.type_name == "str":
        return _numbered(value)
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False)
    return str(value)


def json_text(value: JsonValue) -> str:
    """Return `value` as JSON on one line, with letters of every script as they are."""
    return json.dumps(value, ensure_ascii=False)


def delimit_inputs(style: FieldStyle, pairs: Pairs, shown: Mapping[str, str]) -> str:
    """Return input fields in `style`; `shown` is the result of `labels`. A name may occur twice."""
    match style:
        case "dspy":
            return "\n\n".join(f"[[ ## {name} ## ]]\n{text}" for name, text in pairs)
        case "xml":
            return "\n".join(f"<{name}>\n{text}\n</{name}>" for name, text in pairs)
        case "markdown":
            return "\n\n".join(f"## {shown[name]}\n{text}" for name, text in pairs)
        case "label":
            return "\n".join(f"{shown[name]}: {text}" for name, text in pairs)
        case "json":
            return _json_object(pairs)


def delimit_outputs(style: OutputStyle, pairs: Pairs, shown: Mapping[str, str]) -> str:
    """Return output fields in `style`: the whole text of an answer."""
    match style:
        case "dspy":
            # Stripped as ChatAdapter does: an empty last value leaves no blank line behind.
            return "\n\n".join(f"[[ ## {name} ## ]]\n{text}" for name, text in pairs).strip() + "\n\n" + COMPLETED
        case "xml":
            return "\n".join(f"<{name}>{text}</{name}>" for name, text in pairs)
        case "label":
            return "\n".join(f"{shown[name]}: {text}" if text else f"{shown[name]}:" for name, text in pairs)
        case "bare":
            return f"\n{SEPARATOR}\n".join(text for _, text in pairs)
        case "json":
            return _json_object(pairs)


def first_delimiter(style: OutputStyle, name: str, shown: Mapping[str, str]) -> str:
    """Return what every answer starts with when its first field is `name`, without a trailing space."""
    match style:
        case "dspy":
            return f"[[ ## {name} ## ]]\n"
        case "xml":
            return f"<{name}>"
        case "label":
            return f"{shown[name]}:"
        case "json":
            return "{" + f"{json_text(name)}:"
        case "bare":
            return ""


def _json_object(pairs: Pairs) -> str:
    return "{" + ", ".join(f"{json_text(name)}: {text}" for name, text in pairs) + "}"


def _numbered(values: Sequence[JsonValue]) -> str:
    # dspy.adapters.utils._format_input_list_field_value: passages of a retriever in a field typed str.
    texts = [_quoted(value if isinstance(value, str) else json_text(value)) for value in values]
    if len(texts) < 2:
        return texts[0] if texts else "N/A"
    return "\n".join(f"[{number}] {text}" for number, text in enumerate(texts, start=1))


def _quoted(text: str) -> str:
    if not any(mark in text for mark in "\n«»"):
        return f"«{text}»"
    indented = text.replace("\n", "\n    ")
    return f"«««\n    {indented}\n»»»"
