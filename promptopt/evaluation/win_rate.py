"""Two systems against each other, by a pairwise judge over the records of both."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean

from promptopt.errors import DataError
from promptopt.evaluation.statistics import Interval, bootstrap_interval
from promptopt.metrics.judges.pairwise import PairwiseJudge
from promptopt.records import DataRow, ExampleRecord


@dataclass(frozen=True)
class WinRate:
    """How often the second system beats the first.

    Attributes:
        rate: mean over decided examples, where a win is 1, a tie 1/2 and a loss 0; None where none is decided.
        interval: 95 % bootstrap interval of it.
        wins, ties, losses: of the second system. swayed: ties that are one because the order changed the verdict.
        undecided: reason -> examples, which are left out.
    """

    rate: float | None
    interval: Interval | None
    wins: int
    ties: int
    losses: int
    swayed: int
    undecided: dict[str, int] = field(default_factory=dict)


def win_rate(
    judge: PairwiseJudge,
    rows: Sequence[DataRow],
    first: Sequence[ExampleRecord],
    second: Sequence[ExampleRecord],
    seed: int,
) -> WinRate:
    """Return how often the second system's answer is better, on the rows that both have records of.

    An answer that did not parse is an empty one, and loses against any other.

    Args:
        first, second: records of one evaluation each, e.g. of `runs/<name>/evaluate/<column>.jsonl`.

    Raises:
        DataError: no row has records of both.
        LMError: the judge's LM broke.
    """
    one, other = ({record.example_id: record.prediction for record in records} for records in (first, second))
    shared = [row for row in rows if row.id in one and row.id in other]
    if not shared:
        raise DataError("The two evaluations share no row: they were made on different rows.")
    preferences = [judge.compare(row.fields, one[row.id], other[row.id]) for row in shared]
    points = {"first": 0.0, "tie": 0.5, "second": 1.0}
    values = [points[preference.side] for preference in preferences if preference.side is not None]
    undecided: dict[str, int] = {}
    for preference in preferences:
        if preference.side is None:
            undecided[preference.reason] = undecided.get(preference.reason, 0) + 1
    return WinRate(
        rate=fmean(values) if values else None,
        interval=bootstrap_interval(values, seed) if values else None,
        wins=values.count(1.0),
        ties=values.count(0.5),
        losses=values.count(0.0),
        swayed=sum(preference.swayed for preference in preferences),
        undecided=undecided,
    )
