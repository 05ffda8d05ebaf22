"""Pieces of Markdown (GitHub's dialect) that hold any text without breaking. Knows nothing of reports."""

import re
from collections.abc import Sequence

_SPECIAL = re.compile(r"([\\`*_\[\]<>#|~$&])")
_BARS = "▁▂▃▄▅▆▇█"


def escape(text: str) -> str:
    """Return `text` as one line that Markdown shows as it is, in a paragraph or a table cell."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))


def code(text: str) -> str:
    """Return `text` as a code span on one line, with enough backticks around those inside; empty stays empty."""
    line = " ".join(text.split())
    if not line:
        return ""
    ticks = "`" * (_longest_run(line, "`") + 1)
    padding = " " if line[0] == "`" or line[-1] == "`" else ""
    return f"{ticks}{padding}{line}{padding}{ticks}"


def fence(text: str, language: str = "") -> str:
    """Return `text` as a fenced block whose fence is longer than any run of backticks inside."""
    ticks = "`" * max(3, _longest_run(text, "`") + 1)
    return f"{ticks}{language}\n{text}\n{ticks}"


def table(rows: Sequence[Sequence[str]], numbers_from: int | None = None) -> str:
    """Return a table whose first row is the header.

    Args:
        rows: cells that are Markdown already (see `escape`, `code`); a bar inside a code span is escaped here.
        numbers_from: index of the first column that is set flush right; None = none.
    """
    header, *body = rows
    first = len(header) if numbers_from is None else numbers_from
    rule = ["---" if index < first else "---:" for index in range(len(header))]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in row) + " |" for row in [header, rule, *body])


def sparkline(values: Sequence[float]) -> str:
    """Return one block character per value, lowest to highest; equal values give the lowest block."""
    if not values:
        return ""
    low, high = min(values), max(values)
    span = high - low
    return "".join(_BARS[round((value - low) / span * (len(_BARS) - 1)) if span else 0] for value in values)


def _cell(text: str) -> str:
    return re.sub(r"(?<!\\)\|", r"\\|", " ".join(text.split()))


def _longest_run(text: str, character: str) -> int:
    return max((len(run) for run in re.findall(f"{re.escape(character)}+", text)), default=0)
