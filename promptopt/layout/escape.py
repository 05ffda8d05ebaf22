"""Marks: the delimiters of an answer's style, and the reversible escape that keeps values from being read as one.

What lives here: how values are guarded by single backslashes and freed of them, and how a line is recognised as a
delimiter. It does not know how an answer is put together (fields, render) or taken apart (parse).

`unescape(escape(text)) == text` for every text, and `escape` has no white space at its edges, so a parser may strip.
Both rules count backslashes instead of doubling them: a text that nobody could misread is not touched at all.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from promptopt.layout.fields import SEPARATOR, labels
from promptopt.layout.signature import SignatureSpec
from promptopt.layout.spec import OutputStyle

_LEADING = re.compile(r"\\*\s")
_TRAILING = re.compile(r"\s\\*\Z")
_ESCAPED_LEADING = re.compile(r"\\+\s")
_ESCAPED_TRAILING = re.compile(r"\s\\+\Z")


def escape_edges(text: str) -> str:
    """Guard white space at the edges of `text` by one backslash outside of it."""
    head = "\\" if _LEADING.match(text) else ""
    tail = "\\" if _TRAILING.search(text) else ""
    return head + text + tail


def unescape_edges(text: str) -> str:
    """Undo `escape_edges`; white space outside the guards is dropped."""
    text = text.strip()
    if _ESCAPED_TRAILING.search(text):
        text = text[:-1]
    return text[1:] if _ESCAPED_LEADING.match(text) else text


@dataclass(frozen=True)
class Marks:
    """The delimiters of one output style for one signature.

    Attributes:
        fields: text in a line's delimiter -> field name.
        line: matches a line that starts a section; group `name` is what stands in the delimiter. None where the style
            has no such lines.
        guarded: matches what has to be escaped within a line: group 1 is kept before the backslash.
        freed: matches the escaped form: group 1 is kept, then one backslash is dropped.
    """

    fields: Mapping[str, str] = field(default_factory=dict)
    line: re.Pattern[str] | None = None
    guarded: re.Pattern[str] | None = None
    freed: re.Pattern[str] | None = None

    def escape(self, text: str) -> str:
        """Return `text` as it is written into an answer."""
        if self.guarded is not None:
            text = "\n".join(self.guarded.sub(r"\1\\", line) for line in text.split("\n"))
        return escape_edges(text)

    def field_of(self, text: str) -> str | None:
        """Return the field that a line's delimiter with `text` in it belongs to; None for a delimiter of no field."""
        if text in self.fields or self.line is None:
            return self.fields.get(text)
        flags = self.line.flags & re.IGNORECASE
        return next((name for mark, name in self.fields.items() if re.fullmatch(re.escape(mark), text, flags)), None)

    def unescape(self, text: str) -> str:
        """Return the value that `text`, cut out of an answer, stands for."""
        text = unescape_edges(text)
        if self.freed is not None:
            text = "\n".join(self.freed.sub(r"\1", line) for line in text.split("\n"))
        return text


def output_marks(style: OutputStyle, spec: SignatureSpec) -> Marks:
    """Return the delimiters of `style` for the outputs of `spec` (a reasoning field is among them already)."""
    names = [output.name for output in spec.outputs]
    if style == "dspy":
        return _line_marks(r"\[\[ ## (?P<name>\w+) ## \]\]", {name: name for name in names})
    if style == "label":
        return _label_marks(labels(spec), names)
    if style == "bare" and len(names) > 1:
        return _line_marks(rf"(?P<name>{re.escape(SEPARATOR)})\s*\Z", {})
    if style == "xml":
        tag = rf"/?(?:{either(names)})>"
        return Marks(guarded=re.compile(rf"(<)(?=\\*{tag})"), freed=re.compile(rf"(<)\\(?=\\*{tag})"))
    return Marks()


def _label_marks(shown: Mapping[str, str], names: Sequence[str]) -> Marks:
    fields = {shown[name]: name for name in names}
    return _line_marks(rf"(?P<name>{either(list(fields))})[ \t]*:", fields, re.IGNORECASE)


def _line_marks(mark: str, fields: Mapping[str, str], flags: re.RegexFlag = re.NOFLAG) -> Marks:
    return Marks(
        fields=fields,
        line=re.compile(rf"\s*{mark}", flags),
        guarded=re.compile(rf"\A(\s*)(?=\\*{mark})", flags),
        freed=re.compile(rf"\A(\s*)\\(?=\\*{mark})", flags),
    )


def either(texts: Sequence[str]) -> str:
    """Return a pattern that matches any of `texts` literally."""
    # Longest first: an alternation takes the first that fits, and one name may begin another.
    return "|".join(re.escape(text) for text in sorted(texts, key=len, reverse=True)) or r"(?!)"
