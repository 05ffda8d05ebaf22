"""Near-duplicates across splits: rows of train that nearly equal a row of val or test, and rows of val one of test."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from promptopt.data.loaders import canonical_json
from promptopt.data.near_duplicates import NearDuplicates
from promptopt.records import DataRow, SplitName

LAST_FIRST: tuple[SplitName, ...] = ("test", "val", "train")
"""A leak is counted in, and dropped from, the split that stands further behind."""


@dataclass(frozen=True)
class SplitLeak:
    """A row of `split` that nearly equals the row `other_id` of `other_split`; `similarity` is that of their inputs."""

    split: SplitName
    row_id: str
    other_split: SplitName
    other_id: str
    similarity: float


def input_text(row: DataRow, inputs: Sequence[str]) -> str:
    """Return what a row says to the program: its input fields, one after the other."""
    values = (row.fields[name] for name in inputs if name in row.fields)
    return "\n".join(value if isinstance(value, str) else canonical_json(value) for value in values)


class LeakFinder:
    """Rows of later splits, which can be asked for one that nearly equals a row of another split.

    Args:
        inputs: fields that are compared.
        threshold: see `NearDuplicates`.
    """

    def __init__(self, inputs: Sequence[str], threshold: float) -> None:
        self._inputs = inputs
        self._index = NearDuplicates(threshold)
        self._split_of: dict[str, SplitName] = {}

    def add(self, split: SplitName, rows: Sequence[DataRow]) -> None:
        """Remember the rows of a split."""
        for row in rows:
            self._split_of[row.id] = split
            self._index.add(row.id, input_text(row, self._inputs))

    def find(self, split: SplitName, row: DataRow) -> SplitLeak | None:
        """Return a remembered row that `row`, of `split`, nearly equals; None if there is none."""
        found = self._index.find(input_text(row, self._inputs))
        return SplitLeak(split, row.id, self._split_of[found[0]], *found) if found else None


def find_leaks(
    splits: Mapping[SplitName, Sequence[DataRow]], inputs: Sequence[str], threshold: float
) -> list[SplitLeak]:
    """Return the near-duplicates across `splits`: at most one per row, those of val before those of train."""
    finder = LeakFinder(inputs, threshold)
    leaks: list[SplitLeak] = []
    for split in LAST_FIRST:
        if split != LAST_FIRST[0]:
            leaks += filter(None, (finder.find(split, row) for row in splits[split]))
        finder.add(split, splits[split])
    return leaks
