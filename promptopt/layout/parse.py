"""Parse: the text of an answer becomes output fields again, in the layout's own format and in no other.

What lives here: one reader per output style. It does not know the types of fields (every value is text, or what JSON
makes of it; dspy_adapter turns text into types) and never tries another format when one does not fit.

As tolerant as DSPy's ChatAdapter: text before the first delimiter is ignored, the first of two values for one field
counts, a value may stand on its delimiter's line, the closing marker may be missing.
"""

import json
import re
from collections.abc import Callable, Mapping

from pydantic import JsonValue

from promptopt.errors import ParseError
from promptopt.layout.escape import Marks, either, output_marks
from promptopt.layout.signature import SignatureSpec, with_reasoning
from promptopt.layout.spec import Layout, OutputStyle

_QUOTED_CHARACTERS = 160
_DECODER = json.JSONDecoder(strict=False)


def parse_completion(layout: Layout, spec: SignatureSpec, text: str) -> dict[str, JsonValue]:
    """Return output name -> value, in the signature's order; optional outputs that the answer lacks are not in it.

    `parse_completion(layout, spec, render_completion(layout, spec, outputs)) == outputs` for all str values.

    Args:
        layout: what the answer was asked for in.
        spec: the signature, without the reasoning field that the layout may add.
        text: the whole answer, starting with `prefill_text` where the layout prefills.

    Raises:
        ParseError: a field is missing, or its delimiter is never closed.
    """
    full = with_reasoning(layout, spec)
    found = _READERS[layout.output_style](full, text, output_marks(layout.output_style, full))
    missing = [field.name for field in full.outputs if field.name not in found and not field.optional]
    if missing:
        raise _not_parsed(layout.output_style, f"lacks {', '.join(missing)} ({_found(found)})", text)
    return {field.name: found[field.name] for field in full.outputs if field.name in found}


def _read_sections(spec: SignatureSpec, text: str, marks: Marks) -> dict[str, JsonValue]:
    """Read styles in which a line opens a field: "dspy" and "label"."""
    assert marks.line is not None
    sections: list[tuple[str | None, list[str]]] = []
    for line in text.split("\n"):
        match = marks.line.match(line)
        if match:
            sections.append((marks.field_of(match["name"]), [line[match.end() :]]))
        elif sections:
            sections[-1][1].append(line)
    found: dict[str, JsonValue] = {}
    for name, lines in sections:
        if name is not None and name not in found:
            found[name] = marks.unescape("\n".join(lines))
    return found


def _read_xml(spec: SignatureSpec, text: str, marks: Marks) -> dict[str, JsonValue]:
    opening = re.compile(f"<({either([field.name for field in spec.outputs])})>")
    found: dict[str, JsonValue] = {}
    position = 0
    while match := opening.search(text, position):
        name, start = match[1], match.end()
        end = text.find(f"</{name}>", start)
        if end < 0 and name not in found:
            raise _not_parsed("xml", f"opens <{name}> and never closes it", text)
        if end < 0:
            break  # The answer is there already; what was cut off is a repetition.
        found.setdefault(name, marks.unescape(text[start:end]))
        position = end
    return found


def _read_json(spec: SignatureSpec, text: str, marks: Marks) -> dict[str, JsonValue]:
    """Return the first object with all required fields, else the one with most fields: the caller says what lacks."""
    names = {field.name for field in spec.outputs}
    required = {field.name for field in spec.outputs if not field.optional}
    best: dict[str, JsonValue] = {}
    for match in re.finditer(r"\{", text):
        try:
            value, _ = _DECODER.raw_decode(text, match.start())
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict):
            if required <= value.keys() and names & value.keys():
                return value
            best = max(best, value, key=lambda candidate: len(names & candidate.keys()))
    return {name: value for name, value in best.items() if name in names}


def _read_bare(spec: SignatureSpec, text: str, marks: Marks) -> dict[str, JsonValue]:
    names = [field.name for field in spec.outputs]
    parts: list[list[str]] = [[]]
    for line in text.split("\n"):
        # The last field takes whatever follows it, further separators included.
        if len(parts) < len(names) and marks.line is not None and marks.line.match(line):
            parts.append([])
        else:
            parts[-1].append(line)
    return {name: marks.unescape("\n".join(lines)) for name, lines in zip(names, parts, strict=False)}


_READERS: Mapping[OutputStyle, Callable[[SignatureSpec, str, Marks], dict[str, JsonValue]]] = {
    "dspy": _read_sections,
    "label": _read_sections,
    "xml": _read_xml,
    "json": _read_json,
    "bare": _read_bare,
}


def _found(found: Mapping[str, JsonValue]) -> str:
    return f"found: {', '.join(found)}" if found else "found no field at all"


def _not_parsed(style: OutputStyle, problem: str, text: str) -> ParseError:
    start = text[:_QUOTED_CHARACTERS] + ("..." if len(text) > _QUOTED_CHARACTERS else "")
    return ParseError(f"The answer does not parse in output style {style!r}: it {problem}. It starts with {start!r}.")
