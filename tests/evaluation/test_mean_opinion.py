"""Flow Benchmark Tools' aggregation, by cases computed by hand."""

import pytest

from promptopt.errors import DataError
from promptopt.evaluation.mean_opinion import MeanOpinion, mean_opinion, opinion_figures, ratings_of
from promptopt.lm.scripted import ScriptedLM
from promptopt.metrics import answer_f1
from promptopt.metrics.judges.rating import ReferenceJudge
from promptopt.records import ExampleRecord, Outcome


@pytest.mark.parametrize(
    ("ratings", "mean", "failures_as_1", "coverage"),
    [
        ([10, 8, 6, 4], 7.0, 7.0, 1.0),
        ([10, 8, None, 0], 9.0, (10 + 8 + 1 + 1) / 4, 0.5),
        ([7, None, None], 7.0, 3.0, 1 / 3),
        ([1], 1.0, 1.0, 1.0),
        ([0, None], None, 1.0, 0.0),
    ],
)
def test_failures_are_left_out_of_flows_mean_and_rated_1_beside_it(
    ratings: list[float | None], mean: float | None, failures_as_1: float, coverage: float
) -> None:
    found = mean_opinion(ratings)
    assert found == MeanOpinion(mean, pytest.approx(failures_as_1), pytest.approx(coverage), len(ratings))


def test_what_is_no_rating_is_refused() -> None:
    with pytest.raises(ValueError, match="between 1 and 10"):
        mean_opinion([11])
    with pytest.raises(DataError):
        mean_opinion([])


def record(outcome: Outcome, score: float | None) -> ExampleRecord:
    return ExampleRecord(example_id="x", outcome=outcome, score=score)


def test_ratings_come_back_from_records() -> None:
    records = [
        record(Outcome.SCORED, 1.0),
        record(Outcome.SCORED, 0.0),
        record(Outcome.PARSE_FAILED, 0.0),
        record(Outcome.UNSCORED, None),
    ]
    assert ratings_of(records) == [10.0, 1.0, None, None]
    judged = opinion_figures(ReferenceJudge(ScriptedLM([])), records)
    assert judged == pytest.approx({"failures left out": 0.5, "failures rated 1": (13 / 4 - 1) / 9, "coverage": 0.5})
    assert opinion_figures(answer_f1, records) == {}
