"""A small reader of GBNF, written for the tests alone: draws random texts from a grammar, and says which texts fit it.

Independent of promptopt.layout.gbnf, so that a mistake there is not made twice; llama.cpp is the third opinion.
"""

import random
import re
from collections.abc import Iterator
from typing import Any

TOP = 0x10FFFF
SHORT = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\", '"': '"', "[": "[", "]": "]"}
Symbol = tuple[str, Any]  # ("chars", ranges) or ("rule", name)


class Gbnf:
    """A parsed grammar."""

    def __init__(self, text: str) -> None:
        self.rules: dict[str, list[list[Symbol]]] = {}
        for line in text.splitlines():
            name, body = line.split(" ::= ", 1)
            assert name not in self.rules, name
            self._text, self._at, self._name = body, 0, name
            self.rules[name] = self._alternatives()
            assert self._at == len(body), (name, body[self._at :])
        for alternatives in self.rules.values():
            for kind, value in (symbol for sequence in alternatives for symbol in sequence):
                assert kind == "chars" or value in self.rules, value
        self._cost = self._costs()

    def _peek(self) -> str:
        while self._at < len(self._text) and self._text[self._at] == " ":
            self._at += 1
        return self._text[self._at : self._at + 1]

    def _alternatives(self) -> list[list[Symbol]]:
        found = [self._sequence()]
        while self._peek() == "|":
            self._at += 1
            found.append(self._sequence())
        return found

    def _sequence(self) -> list[Symbol]:
        found: list[Symbol] = []
        while (char := self._peek()) not in ("", "|", ")"):
            found += self._repeated(self._one(char))
        return found

    def _one(self, char: str) -> list[Symbol]:
        self._at += 1
        if char == '"':
            text = ""
            while self._text[self._at] != '"':
                text += self._char()
            self._at += 1
            return [("chars", ((ord(one), ord(one)),)) for one in text]
        if char == "[":
            return [("chars", self._class())]
        if char == ".":
            return [("chars", ((0, TOP),))]
        if char == "(":
            inner = self._alternatives()
            assert self._peek() == ")"
            self._at += 1
            return [("rule", self._new(inner))]
        match = re.compile(r"[a-zA-Z0-9-]+").match(self._text, self._at - 1)
        assert match, self._text[self._at - 1 :]
        self._at = match.end()
        return [("rule", match[0])]

    def _char(self) -> str:
        char = self._text[self._at]
        self._at += 1
        if char != "\\":
            return char
        kind = self._text[self._at]
        self._at += 1
        if kind in SHORT:
            return SHORT[kind]
        length = {"x": 2, "u": 4, "U": 8}[kind]
        self._at += length
        return chr(int(self._text[self._at - length : self._at], 16))

    def _class(self) -> tuple[tuple[int, int], ...]:
        negated = self._text[self._at] == "^"
        self._at += negated
        ranges = []
        while self._text[self._at] != "]":
            first = last = ord(self._char())
            if self._text[self._at] == "-" and self._text[self._at + 1] != "]":
                self._at += 1
                last = ord(self._char())
            assert first <= last
            ranges.append((first, last))
        self._at += 1
        if not negated:
            return tuple(ranges)
        start, gaps = 0, []
        for first, last in sorted(ranges):
            if first > start:
                gaps.append((start, first - 1))
            start = max(start, last + 1)
        return (*gaps, (start, TOP)) if start <= TOP else tuple(gaps)

    def _repeated(self, item: list[Symbol]) -> list[Symbol]:
        # As in llama.cpp, an operator directly behind a literal means the whole literal.
        text = self._text[self._at :].lstrip(" ")
        match = re.match(r"[*+?]|\{(\d+)?(,)?(\d+)?\}", text)
        if not match or not item:
            return item
        self._at = len(self._text) - len(text) + match.end()
        low, high = {"*": (0, None), "+": (1, None), "?": (0, 1)}.get(match[0], (int(match[1] or 0), None))
        if match[0].startswith("{"):
            high = int(match[3]) if match[3] else (None if match[2] else low)
        tail: list[Symbol] = []
        if high is None:
            name = self._new([])
            self.rules[name] = [[*item, ("rule", name)], []]
            tail = [("rule", name)]
        for _ in range((high or low) - low):
            tail = [("rule", self._new([[*item, *tail], []]))]
        return item * low + tail

    def _new(self, alternatives: list[list[Symbol]]) -> str:
        name = f"{self._name}_{len(self.rules)}"
        self.rules[name] = alternatives
        return name

    def _costs(self) -> dict[str, float]:
        cost = {name: float("inf") for name in self.rules}
        changed = True
        while changed:
            changed = False
            for name, alternatives in self.rules.items():
                best = min((self._cost_of(sequence, cost) for sequence in alternatives), default=float("inf"))
                if best < cost[name]:
                    cost[name], changed = best, True
        return cost

    @staticmethod
    def _cost_of(sequence: list[Symbol], cost: dict[str, float]) -> float:
        return sum(1 if kind == "chars" else cost[value] for kind, value in sequence)

    def unproductive(self) -> set[str]:
        """Rules that can never be completed: a model would be stuck there."""
        return {name for name, cost in self._cost.items() if cost == float("inf")}

    def sample(self, rng: random.Random, budget: int = 120) -> str:
        """Draw a text; past `budget` characters the shortest way out is taken."""
        text: list[str] = []
        waiting: list[Symbol] = [("rule", "root")]
        while waiting:
            kind, value = waiting.pop()
            if kind == "chars":
                text.append(_draw(rng, value))
                continue
            options = self.rules[value]
            if len(text) + len(waiting) > budget:
                options = [min(options, key=lambda sequence: self._cost_of(sequence, self._cost))]
            waiting += reversed(rng.choice(options))
        return "".join(text)

    def accepts(self, text: str) -> bool:
        """Whether the whole of `text` fits."""
        stacks = self._expanded([(("rule", "root"), None)])
        for char in text:
            moved = [
                stack[1]
                for stack in stacks
                if stack is not None and any(first <= ord(char) <= last for first, last in stack[0][1])
            ]
            stacks = self._expanded(moved)
            if not stacks:
                return False
        return None in stacks

    def _expanded(self, stacks: list[Any]) -> set[Any]:
        """Replace rules on top of stacks by what they begin with; None is the empty stack."""
        seen: set[Any] = set()
        ready: set[Any] = set()
        waiting = list(stacks)
        while waiting:
            stack = waiting.pop()
            if stack in seen:
                continue
            seen.add(stack)
            if stack is None or stack[0][0] == "chars":
                ready.add(stack)
                continue
            (_, name), rest = stack
            for sequence in self.rules[name]:
                grown = rest
                for symbol in reversed(sequence):
                    grown = (symbol, grown)
                waiting.append(grown)
        return ready


def _draw(rng: random.Random, ranges: tuple[tuple[int, int], ...]) -> str:
    """Draw a character: mostly the small and the special, now and then any."""
    first, last = rng.choice(ranges)
    nice = [code for code in (*range(9, 14), *range(32, 127), 0x3042, 0x1F600, 0x85, 0x3000) if first <= code <= last]
    code = rng.choice(nice) if nice and rng.random() < 0.9 else rng.randint(first, min(last, first + 300))
    code = code or min(1, last)  # No token is NUL.
    return chr(0x41) if 0xD800 <= code <= 0xDFFF and first <= 0x41 <= last else chr(code)


def samples(grammar: str, count: int, seed: int = 0, budget: int = 120) -> Iterator[str]:
    """Yield `count` random texts of `grammar`."""
    parsed = Gbnf(grammar)
    assert parsed.unproductive() == set()
    for number in range(count):
        yield parsed.sample(random.Random(seed * 100003 + number), budget)
