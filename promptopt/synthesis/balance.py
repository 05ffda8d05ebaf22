"""Which document is asked next: the one with the fewest rows, until there are enough. Knows no LM and no text.

Attempts come in rounds. A round is decided by the results of those before it and by the seed, never by which answer
came first: the same command asks the same questions, alone or in parallel, at once or after a kill.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass, field

ROUND = 32
"""Most attempts of one round; a small one follows the balance closely, a large one keeps more of them running."""


@dataclass
class _State:
    accepted: int = 0
    asked: int = 0
    misses: int = 0


@dataclass(frozen=True)
class Visit:
    """One attempt on a document: its number among all attempts on it, from 0."""

    document: str
    number: int


@dataclass
class Balance:
    """Spreads `wanted` rows evenly over documents.

    Attributes:
        documents: name -> passages; a round visits no passage twice, for what one visit writes the next has to avoid.
        most_attempts: over all documents.
        give_up_after: a document is left alone after so many rejections in a row.
        most_rows: of one document; None = no limit.
    """

    documents: Mapping[str, int]
    wanted: int
    most_attempts: int
    give_up_after: int
    most_rows: int | None
    seed: int
    _states: dict[str, _State] = field(init=False)

    def __post_init__(self) -> None:
        order = list(self.documents)
        random.Random(f"{self.seed}:documents").shuffle(order)
        self._states = {name: _State() for name in order}

    @property
    def accepted(self) -> int:
        """Rows there are."""
        return sum(state.accepted for state in self._states.values())

    @property
    def asked(self) -> int:
        """Attempts there were."""
        return sum(state.asked for state in self._states.values())

    @property
    def rows_of(self) -> dict[str, int]:
        """Document -> its rows."""
        return {name: self._states[name].accepted for name in self.documents}

    @property
    def given_up(self) -> list[str]:
        """Documents that are left alone because of rejections."""
        return [name for name in self.documents if self._states[name].misses >= self.give_up_after]

    def next_round(self) -> list[Visit]:
        """Return the next attempts; none when there are enough rows or nothing is left to try."""
        size = min(ROUND, self.wanted - self.accepted, self.most_attempts - self.asked)
        planned = dict.fromkeys(self._states, 0)
        visits = []
        for _ in range(size):
            open_ones = [name for name in self._states if self._takes_more(name, planned[name])]
            if not open_ones:
                break
            name = min(open_ones, key=lambda one: self._states[one].accepted + planned[one])
            visits.append(Visit(name, self._states[name].asked + planned[name]))
            planned[name] += 1
        return visits

    def note(self, visit: Visit, accepted: bool) -> None:
        """Take down what became of an attempt."""
        state = self._states[visit.document]
        state.asked += 1
        state.accepted += accepted
        state.misses = 0 if accepted else state.misses + 1

    def _takes_more(self, name: str, planned: int) -> bool:
        state = self._states[name]
        full = self.most_rows is not None and state.accepted + planned >= self.most_rows
        return not full and planned < self.documents[name] and state.misses + planned < self.give_up_after
