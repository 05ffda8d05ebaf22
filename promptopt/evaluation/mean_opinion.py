"""The mean opinion score of a judge's ratings, as Flow Benchmark Tools aggregate it, with what that hides beside it."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from promptopt.errors import DataError
from promptopt.metrics.base import Metric
from promptopt.metrics.judges.jury import Jury
from promptopt.metrics.judges.rating import RatingJudge
from promptopt.metrics.judges.verdict import HIGHEST, LOWEST, unit
from promptopt.records import ExampleRecord, Outcome


@dataclass(frozen=True)
class MeanOpinion:
    """Ratings of 1 to 10, together.

    Attributes:
        mean: of the ratings that are there, as Flow Benchmark Tools give it; None where there is none.
        mean_failures_as_1: where a failure counts as the lowest rating.
        coverage: share of the cases that have a rating.
    """

    mean: float | None
    mean_failures_as_1: float
    coverage: float
    n: int


def mean_opinion(ratings: Sequence[float | None]) -> MeanOpinion:
    """Return the aggregates of one rating per case; None and 0 (Flow's own mark) are failures.

    A system that fails on every hard case has a high mean as Flow computes it: the mean alone compares nothing.

    Raises:
        DataError: there is no case. ValueError: a rating is not from 1 to 10.
    """
    if not ratings:
        raise DataError("There are no cases, so there is no mean opinion score.")
    valid = [rating for rating in ratings if rating]
    if any(not LOWEST <= rating <= HIGHEST for rating in valid):
        raise ValueError(f"ratings lie between {LOWEST} and {HIGHEST}; got {sorted(set(valid))}")
    failed = len(ratings) - len(valid)
    return MeanOpinion(
        mean=fmean(valid) if valid else None,
        mean_failures_as_1=(sum(valid) + LOWEST * failed) / len(ratings),
        coverage=len(valid) / len(ratings),
        n=len(ratings),
    )


def ratings_of(records: Sequence[ExampleRecord]) -> list[float | None]:
    """Return the ratings behind the scores that a judge gave; None for what did not parse and what is undecided."""
    return [
        LOWEST + record.score * (HIGHEST - LOWEST)
        if record.outcome is Outcome.SCORED and record.score is not None
        else None
        for record in records
    ]


def opinion_figures(metric: Metric, records: Sequence[ExampleRecord]) -> dict[str, float]:
    """Return, where `metric` is a judge, its mean scores as Flow does and with failures as 1, and the coverage."""
    if not isinstance(metric, RatingJudge | Jury) or not records:
        return {}
    found = mean_opinion(ratings_of(records))
    flow = {} if found.mean is None else {"failures left out": unit(found.mean)}
    return {**flow, "failures rated 1": unit(found.mean_failures_as_1), "coverage": found.coverage}
