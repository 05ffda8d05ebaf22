"""Unwritable: what a free text must not contain in an answer, as marks that a grammar can keep out.

What lives here: the delimiters of escape.output_marks once more, seen from the writer's side; tests hold the two
together. It does not know how the rest of an answer looks (grammar).
"""

from promptopt.layout.fields import SEPARATOR, labels
from promptopt.layout.gbnf import chars
from promptopt.layout.gbnf.free_text import Mark, Step
from promptopt.layout.signature import SignatureSpec
from promptopt.layout.spec import OutputStyle


def unwritable(style: OutputStyle, spec: SignatureSpec) -> list[Mark]:
    """Return what a value must not contain, because the reader would take it for a delimiter: see escape.output_marks.

    Where a name in `[[ ## name ## ]]` has characters that are neither letters nor ASCII, more is kept out than needed.
    """
    names = [output.name for output in spec.outputs]
    blank: Step = (chars.minus(chars.WHITE, chars.of("\n")), True)
    match style:
        case "dspy":
            word = chars.WORD_OR_FOREIGN
            steps = (*_steps("[[ ## "), (word, False), (word, True), *_steps(" ## ]]"))
            return [Mark((blank, *steps), starts_line=True)]
        case "label":
            shown = labels(spec)
            between: Step = (chars.of(" \t"), True)
            letters = [tuple((chars.alike(char), False) for char in shown[name]) for name in names]
            return [Mark((blank, *steps, between, *_steps(":")), starts_line=True) for steps in letters]
        case "xml":
            return [tag_mark(f"<{end}{name}>") for name in names for end in ("", "/")]
        case "bare" if len(names) > 1:
            return [Mark((blank, *_steps(SEPARATOR), blank), starts_line=True, whole_line=True)]
    return []


def tag_mark(text: str, *, guarded: bool = False) -> Mark:
    """Return the mark of an xml tag; with `guarded` also as it looks behind backslashes of the escape."""
    backslashes: tuple[Step, ...] = ((chars.of("\\"), True),) if guarded else ()
    return Mark((*_steps(text[0]), *backslashes, *_steps(text[1:])))


def _steps(text: str) -> tuple[Step, ...]:
    return tuple((chars.of(char), False) for char in text)
