"""Free text that cannot be misread: any text that starts with ink and is without certain marks.

What lives here: `Mark`, what must not occur, and the automaton that never completes one. GBNF has no "unless", so each
state of having read a part of a mark becomes a rule. It does not know which marks a layout has (unwritable).

White space may follow the text, as it may stand inside of it. Were it refused there, a model that breaks the line in
front of a closing delimiter would never be allowed to finish that delimiter.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

from promptopt.layout.gbnf import chars
from promptopt.layout.gbnf.chars import WHITE, Ranges
from promptopt.layout.gbnf.rules import Rules

_NEWLINE = ord("\n")

Step = tuple[Ranges, bool]
"""Characters, and whether any number of them may follow one another (also none)."""


@dataclass(frozen=True)
class Mark:
    """What a text must not contain.

    Attributes:
        steps: its characters, in order.
        starts_line: it counts only at the start of a line.
        whole_line: it counts only if nothing stands behind it on its line.
    """

    steps: tuple[Step, ...]
    starts_line: bool = False
    whole_line: bool = False


Positions = frozenset[tuple[int, int]]
"""How far each mark has been read: (number of the mark, number of its next step)."""


class Marks:
    """Reads text character by character and says which marks it may be inside of."""

    def __init__(self, marks: Sequence[Mark]) -> None:
        self._marks = marks
        self._anywhere = self._closed([(n, 0) for n, mark in enumerate(marks) if not mark.starts_line])
        self.start = self._anywhere | self._closed([(n, 0) for n, mark in enumerate(marks) if mark.starts_line])

    def sets(self) -> list[Ranges]:
        """Return the sets of characters that the marks tell apart."""
        return [chars.of("\n"), *(step for mark in self._marks for step, _ in mark.steps)]

    def complete(self, positions: Positions) -> bool:
        """Return whether a mark has been read to its end."""
        return any(step == len(self._marks[mark].steps) for mark, step in positions)

    def read(self, positions: Positions, code: int) -> Positions | None:
        """Return the positions after one more character; None if that completes a mark."""
        if code == _NEWLINE:
            return None if self.complete(positions) else self.start
        moved = []
        for mark, step in positions:
            steps = self._marks[mark].steps
            if step < len(steps) and chars.contains(steps[step][0], code):
                moved.append((mark, step if steps[step][1] else step + 1))
        after = self._closed(moved)
        if any(not self._marks[mark].whole_line for mark, step in after if step == len(self._marks[mark].steps)):
            return None
        return after | self._anywhere

    def _closed(self, positions: Sequence[tuple[int, int]]) -> Positions:
        found = set(positions)
        for mark, start in positions:
            step = start
            while step < len(self._marks[mark].steps) and self._marks[mark].steps[step][1]:
                step += 1
                found.add((mark, step))
        return frozenset(found)


def add_machine(
    rules: Rules,
    name: str,
    sets: Sequence[Ranges],
    start: Hashable,
    read: Callable[[Hashable, int], Hashable | None],
    leave: Callable[[Hashable, str], Sequence[str]],
) -> str:
    """Write an automaton as right-recursive rules, one per state, and return the name of the first.

    Args:
        sets: the sets of characters it tells apart.
        read: state, code point -> the next state; None if the character must not stand there.
        leave: state, name of the start's rule -> expressions with which the text may end or go on otherwise.
    """
    classes = chars.atoms(sets)
    names = {start: rules.reserve(name)}
    waiting = [start]
    while waiting:
        state = waiting.pop()
        targets: dict[Hashable, list[Ranges]] = {}
        for one in classes:
            target = read(state, one[0][0])
            if target is not None:
                targets.setdefault(target, []).append(one)
        options = []
        for target, groups in targets.items():
            if target not in names:
                names[target] = rules.reserve(name)
                waiting.append(target)
            options.append(f"{chars.class_text(chars.union(*groups))} {names[target]}")
        rules.define(names[state], " | ".join([*options, *leave(state, names[start])]))
    return names[start]


def add_text(rules: Rules, marks: Sequence[Mark]) -> str:
    """Add a rule for text of at least one character and return its name."""
    reader = Marks(marks)

    # A state: positions, and whether any character has been read.
    def read(state: Hashable, code: int) -> Hashable | None:
        assert isinstance(state, tuple)
        positions, begun = state
        after = reader.read(positions, code) if begun or not chars.contains(WHITE, code) else None
        return None if after is None else (after, True)

    def leave(state: Hashable, start: str) -> Sequence[str]:
        assert isinstance(state, tuple)
        positions, begun = state
        return ['""'] if begun and not reader.complete(positions) else []

    return add_machine(rules, "text", [WHITE, *reader.sets()], (reader.start, False), read, leave)
