"""Summaries and comparisons of per-example records."""

import pytest

from promptopt.errors import DataError
from promptopt.evaluation.compare import compare, compare_all, corpus_figures, road_steps, summarise
from promptopt.evaluation.statistics import holm
from promptopt.metrics.structured import FieldF1
from promptopt.records import DataRow, ExampleRecord, Outcome


def scored(key: str, score: float, **values: object) -> ExampleRecord:
    return ExampleRecord.model_validate({"example_id": key, "outcome": Outcome.SCORED, "score": score, **values})


def failed(key: str, **values: object) -> ExampleRecord:
    return ExampleRecord.model_validate({"example_id": key, "outcome": Outcome.PARSE_FAILED, "score": 0.0, **values})


def unscored(key: str, **values: object) -> ExampleRecord:
    return ExampleRecord.model_validate({"example_id": key, "outcome": Outcome.UNSCORED, "score": None, **values})


def test_summary_counts_failures_and_leaves_undecided_out() -> None:
    records = [
        scored("a", 1.0, details={"exact": 1.0, "rare": 0.5}, prompt_tokens=100, completion_tokens=4, latency_s=0.1),
        scored("b", 0.5, details={"exact": 0.0}, prompt_tokens=200, completion_tokens=2, latency_s=0.3),
        failed("c", prompt_tokens=300, latency_s=0.2),
        unscored("d", details={"exact": 1.0}, prompt_tokens=400, completion_tokens=6, latency_s=0.6),
    ]
    summary = summarise("best", "best prompt", "val", records, seed=0)
    assert (summary.name, summary.title, summary.split) == ("best", "best prompt", "val")
    assert (summary.n, summary.parse_failures, summary.unscored) == (4, 1, 1)
    assert summary.mean == pytest.approx(0.5)
    assert 0 <= summary.ci_low < summary.mean < summary.ci_high <= 1
    assert summary.details == pytest.approx({"exact": 1 / 3, "rare": 0.25})
    assert (summary.prompt_tokens, summary.completion_tokens, summary.latency_s) == pytest.approx((250, 3, 0.3))
    assert summary == summarise("best", "best prompt", "val", records, seed=0)


def test_corpus_figures_stand_among_the_details_and_leave_undecided_out() -> None:
    rows = [DataRow(id=key, fields={"city": "X", "day": "Y"}) for key in "abc"]
    records = [scored("a", 1.0, prediction={"city": "X", "day": "Y"}), failed("b"), unscored("c")]
    figures = corpus_figures(FieldF1(fields=("city", "day")), rows, records)
    assert figures == {"precision": 1.0, "recall": 0.5, "f1": pytest.approx(2 / 3)}
    details = summarise("best", "best prompt", "test", records, 0, figures).details
    assert details == {"precision (corpus)": 1.0, "recall (corpus)": 0.5, "f1 (corpus)": pytest.approx(2 / 3)}


@pytest.mark.parametrize("records", [[], [unscored("a"), unscored("b")]])
def test_nothing_to_summarise(records: list[ExampleRecord]) -> None:
    with pytest.raises(DataError, match="No example has a score for 'x' on test"):
        summarise("x", "x", "test", records, seed=0)


def test_comparison_pairs_by_id() -> None:
    first = [scored("a", 0.0), scored("b", 0.5), scored("only", 1.0), failed("c"), unscored("d")]
    second = [failed("c"), scored("b", 1.0), scored("a", 1.0), scored("d", 1.0)]
    found = compare(first, second, seed=0)
    assert found.n == 3
    assert found.mean == pytest.approx(0.5)
    assert found == compare(first[::-1], second[::-1], seed=0)


def test_nothing_to_compare() -> None:
    with pytest.raises(DataError, match="share no scored example"):
        compare([scored("a", 1.0)], [scored("b", 1.0)], seed=0)


def test_the_road_is_compared_step_by_step_and_as_a_whole() -> None:
    road = {
        name: [scored(key, score) for key in "abc"] for name, score in (("base", 0.0), ("tuned", 1.0), ("gguf", 0.5))
    }
    pairs = compare_all(road, seed=0, preserving=("gguf",))
    found = road_steps(pairs)
    assert [(one.before, one.after, one.purpose, one.difference.mean) for one in found] == [
        ("base", "tuned", "improve", 1.0),
        ("tuned", "gguf", "preserve", -0.5),
        ("base", "gguf", "improve", 0.5),
    ]
    assert len(road_steps(compare_all({name: road[name] for name in ("base", "tuned")}, seed=0))) == 1


def test_every_pair_is_compared_and_p_values_pay_for_it() -> None:
    road = {
        name: [scored(str(key), float(key % every == 0)) for key in range(40)]
        for name, every in (("a", 40), ("b", 4), ("c", 3), ("d", 2))
    }
    pairs = compare_all(road, seed=0)
    assert len(pairs) == 6
    assert [pair.p_corrected for pair in pairs] == holm([pair.difference.p_value for pair in pairs])
    steps = road_steps(pairs)
    assert [(one.before, one.after) for one in steps] == [("a", "b"), ("b", "c"), ("c", "d"), ("a", "d")]
    assert all(step in pairs for step in steps)
