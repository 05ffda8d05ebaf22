"""What every index over texts offers, and two fused into one. Knows no documents."""

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

DEPTH = 100
"""How far down the rankings are read that are fused."""


@dataclass(frozen=True)
class Hit:
    """One text of an index: its number, and how well it answers the query (comparable within one query only)."""

    number: int
    score: float


class Index(ABC):
    """Numbered texts, ranked by a query. Bears several threads."""

    @abstractmethod
    def search(self, query: str, k: int) -> list[Hit]:
        """Return up to `k` texts, best first; of equal ones, the first. The same query finds the same texts."""


class FusedIndex(Index):
    """Several indexes over the same texts as one, by reciprocal rank fusion.

    A text's score is the sum of 1 / (60 + rank) over the indexes that found it (Cormack, Clarke and Büttcher 2009,
    whose constant 60 is). Scores of the indexes themselves need not be comparable.
    """

    def __init__(self, indexes: Sequence[Index]) -> None:
        self._indexes = tuple(indexes)

    def search(self, query: str, k: int) -> list[Hit]:
        """Return up to `k` texts that any index found, best first."""
        scores: defaultdict[int, float] = defaultdict(float)
        for index in self._indexes:
            for rank, hit in enumerate(index.search(query, max(k, DEPTH)), start=1):
                scores[hit.number] += 1 / (60 + rank)
        best = sorted(scores, key=lambda number: (-scores[number], number))[:k]
        return [Hit(number, scores[number]) for number in best]
