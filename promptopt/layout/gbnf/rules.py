"""Rules: a GBNF grammar under construction.

What lives here: names, definitions, and items in order of which some may be left out. It knows no format.
GBNF is llama.cpp's notation: `name ::= "text" [a-z] other-rule ( a | b )* c{1,3}`.
"""

import re
from collections.abc import Sequence


class Rules:
    """Named rules; a name is used once, a rule that says the same under the same name is the same rule."""

    def __init__(self) -> None:
        self._bodies: dict[str, str] = {}

    def add(self, name: str, body: str) -> str:
        """Define a rule and return its name: `name`, with a number behind it if that means something else already."""
        wanted = _plain(name)
        free, number = wanted, 2
        while self._bodies.get(free, body) != body:
            free, number = f"{wanted}-{number}", number + 1
        self._bodies[free] = body
        return free

    def reserve(self, name: str) -> str:
        """Return a free name like `name`, to be used before it is defined (by rules that contain themselves)."""
        wanted = _plain(name)
        free, number = wanted, 2
        while free in self._bodies:
            free, number = f"{wanted}-{number}", number + 1
        self._bodies[free] = ""
        return free

    def define(self, name: str, body: str) -> None:
        """Say what a reserved name means."""
        self._bodies[name] = body

    def text(self, root: str) -> str:
        """Return the grammar; `root` is the body of its rule `root`."""
        lines = [f"{name} ::= {body}" for name, body in {"root": root, **self._bodies}.items()]
        return "\n".join(lines) + "\n"

    def in_order(self, name: str, items: Sequence[tuple[str, bool]], separator: str, *, empty: bool) -> str:
        """Return an expression for `items` in this order, with `separator` between those that are there.

        Args:
            name: of the rules that this takes.
            items: (expression, whether it may be left out).
            separator: an expression.
            empty: whether all may be left out, where none is required.
        """
        if not any(optional for _, optional in items):
            return f" {separator} ".join(item for item, _ in items)
        after = ""
        options: list[str] = []
        for number in range(len(items) - 1, -1, -1):
            item, optional = items[number]
            if not optional:
                options = []
            options.insert(0, f"{item} {after}".strip())
            if not number:
                break
            one = f"( {separator} {item} )?" if optional else f"{separator} {item}"
            after = self.add(f"{name}-after-{number}", f"{one} {after}".strip())
        bare = empty and all(optional for _, optional in items)
        return f"( {' | '.join(options)} )" + ("?" if bare else "")


def _plain(name: str) -> str:
    return re.sub(r"[^a-zA-Z0-9]+", "-", name).strip("-") or "x"
