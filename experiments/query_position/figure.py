"""A figure of means with intervals, as SVG. Knows no experiment."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

COLOURS = ("#4269d0", "#efb118", "#ff725c")
_LEFT, _WIDTH, _ROW, _TOP = 150, 460, 20, 56


@dataclass(frozen=True)
class Dot:
    """One mean, in [0, 1], with its interval; `group` shares a block of lines, `label` a colour."""

    group: str
    label: str
    mean: float
    low: float
    high: float


def draw(dots: Sequence[Dot], title: str) -> str:
    """Return the figure: one line per dot, in blocks, over one axis from 0 to the largest end of an interval."""
    groups = list(dict.fromkeys(dot.group for dot in dots))
    labels = list(dict.fromkeys(dot.label for dot in dots))
    end = max(0.1, max((dot.high for dot in dots), default=1.0))
    height = _TOP + sum(_ROW * sum(dot.group == group for dot in dots) + _ROW // 2 for group in groups) + 30

    def at(value: float) -> float:
        return _LEFT + _WIDTH * value / end

    parts = [f'<text x="10" y="18" font-weight="bold">{escape(title)}</text>']
    for number, label in enumerate(labels):
        parts.append(f'<circle cx="{_LEFT + 90 * number}" cy="36" r="5" fill="{COLOURS[number % len(COLOURS)]}"/>')
        parts.append(f'<text x="{_LEFT + 90 * number + 10}" y="40">{escape(label)}</text>')
    for step in range(6):
        x = at(end * step / 5)
        parts.append(f'<line x1="{x:.1f}" y1="{_TOP - 6}" x2="{x:.1f}" y2="{height - 24}" stroke="#ddd"/>')
        parts.append(f'<text x="{x:.1f}" y="{height - 8}" text-anchor="middle">{end * step / 5:.2f}</text>')
    y = _TOP + 6
    for group in groups:
        parts.append(f'<text x="10" y="{y + 4}">{escape(group)}</text>')
        for dot in (dot for dot in dots if dot.group == group):
            colour = COLOURS[labels.index(dot.label) % len(COLOURS)]
            ends = f'x1="{at(dot.low):.1f}" x2="{at(dot.high):.1f}"'
            parts.append(f'<line {ends} y1="{y}" y2="{y}" stroke="{colour}" stroke-width="2"/>')
            parts.append(f'<circle cx="{at(dot.mean):.1f}" cy="{y}" r="5" fill="{colour}"/>')
            y += _ROW
        y += _ROW // 2
    body = "\n".join(parts)
    size = f'width="{_LEFT + _WIDTH + 30}" height="{height}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12">\n'
        f'<rect width="100%" height="100%" fill="white"/>\n{body}\n</svg>\n'
    )
