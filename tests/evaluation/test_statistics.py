"""Intervals and paired tests against scipy, known values and edge cases."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from promptopt.evaluation.statistics import (
    Interval,
    bootstrap_interval,
    detectable_difference,
    examples_needed,
    holm,
    paired_bootstrap,
    wilcoxon,
)

RNG = np.random.default_rng(20)
SKEWED = (RNG.random(80) ** 3).tolist()
BINARY = (RNG.random(100) < 0.3).astype(float).tolist()
scores = st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=1, max_size=30)


@pytest.mark.parametrize("values", [SKEWED, BINARY])
@pytest.mark.parametrize("level", [0.8, 0.95])
def test_interval_agrees_with_scipy(values: list[float], level: float) -> None:
    ours = bootstrap_interval(values, seed=1, n_resamples=20_000, level=level)
    golden = stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=20_000,
        confidence_level=level,
        method="percentile",
        rng=np.random.default_rng(2),
    ).confidence_interval
    assert ours.low == pytest.approx(golden.low, abs=0.006)
    assert ours.high == pytest.approx(golden.high, abs=0.006)


def test_interval_covers_the_true_mean_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(3)
    hits = 0
    for trial in range(200):
        interval = bootstrap_interval((rng.random(60) < 0.5).astype(float).tolist(), seed=trial, n_resamples=500)
        hits += interval.low <= 0.5 <= interval.high
    assert 0.90 <= hits / 200 <= 0.99


@given(scores, st.integers(0, 100))
@settings(max_examples=50, deadline=None)
def test_interval_holds_the_mean_and_repeats(values: list[float], seed: int) -> None:
    interval = bootstrap_interval(values, seed, n_resamples=200)
    assert min(values) <= interval.low <= interval.high <= max(values)
    assert interval == bootstrap_interval(values, seed, n_resamples=200)


def test_chunks_do_not_change_what_is_drawn_per_row(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = bootstrap_interval(SKEWED, seed=5)
    monkeypatch.setattr("promptopt.evaluation.statistics._CELLS_AT_ONCE", 1000)
    assert bootstrap_interval(SKEWED, seed=5) == whole


@pytest.mark.parametrize("values", [[0.7], [0.0] * 9, [1.0, 1.0]])
def test_equal_values_give_an_empty_interval(values: list[float]) -> None:
    assert bootstrap_interval(values, seed=0) == Interval(values[0], values[0])


@pytest.mark.parametrize(("values", "message"), [([], "at least one"), ([1.0, float("nan")], "finite")])
def test_impossible_values(values: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bootstrap_interval(values, seed=0)
    with pytest.raises(ValueError, match="level"):
        bootstrap_interval([1.0], seed=0, level=1.0)
    with pytest.raises(ValueError, match="equally many"):
        paired_bootstrap([1.0], [1.0, 0.0], seed=0)


def test_paired_difference_agrees_with_scipy() -> None:
    a = np.array(SKEWED)
    b = np.clip(a + RNG.normal(0.03, 0.1, len(a)), 0, 1)
    ours = paired_bootstrap(a.tolist(), b.tolist(), seed=4, n_resamples=20_000)
    golden = stats.permutation_test(
        (b, a),
        lambda x, y, axis: np.mean(x - y, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=20_000,
        rng=np.random.default_rng(5),
    )
    assert ours.mean == pytest.approx(float(np.mean(b - a)))
    assert ours.p_value == pytest.approx(golden.pvalue, abs=0.015)
    assert ours.low < ours.mean < ours.high
    assert ours.n == 80


def test_paired_direction_and_symmetry() -> None:
    a, b = [0.0] * 10 + [1.0] * 10, [1.0] * 8 + [0.0] * 2 + [1.0] * 10
    better, worse = paired_bootstrap(a, b, seed=0), paired_bootstrap(b, a, seed=0)
    assert better.mean == pytest.approx(0.4)
    assert better.low > 0
    assert better.p_value == worse.p_value == pytest.approx(2 / 2**8, abs=0.006)  # exact: all 8 signs equal
    assert (worse.mean, worse.high) == pytest.approx((-better.mean, -better.low), abs=0.06)


def test_few_examples_never_prove_anything() -> None:
    assert paired_bootstrap([0.0], [1.0], seed=0).p_value == 1.0
    assert paired_bootstrap([0.0, 0.0], [1.0, 1.0], seed=0).p_value == pytest.approx(0.5, abs=0.05)
    assert paired_bootstrap([0.3, 0.4], [0.3, 0.4], seed=0).p_value == 1.0


def test_wilcoxon() -> None:
    a, b = [0.9, 0.8, 0.7, 0.95, 0.6, 0.5], [0.1, 0.15, 0.2, 0.3, 0.25, 0.4]
    assert wilcoxon(a, b, "greater") == pytest.approx(1 / 2**6)  # exact
    assert wilcoxon(a, b, "less") == pytest.approx(1.0)
    assert wilcoxon(a, b) == pytest.approx(2 / 2**6)
    assert wilcoxon(b, a, "less") == wilcoxon(a, b, "greater")


def test_wilcoxon_with_zero_differences() -> None:
    assert wilcoxon([1.0, 0.0, 0.5], [1.0, 0.0, 0.5], "less") == 1.0
    assert wilcoxon([0.4], [0.4]) == 1.0
    a, b = [1.0] * 6 + [0.0] * 20, [0.0] * 6 + [0.0] * 20
    with_zeros = wilcoxon(a, b, "greater")
    assert with_zeros > wilcoxon(a[:6], b[:6], "greater")  # ties are evidence against a difference
    assert with_zeros == pytest.approx(stats.wilcoxon(a, b, zero_method="zsplit", alternative="greater").pvalue)


@given(st.lists(st.tuples(st.sampled_from([0.0, 0.5, 1.0]), st.sampled_from([0.0, 0.5, 1.0])), min_size=1, max_size=20))
@settings(max_examples=20, deadline=None)
def test_p_values_are_probabilities(pairs: list[tuple[float, float]]) -> None:
    a, b = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    assert 0 < paired_bootstrap(a, b, seed=0, n_resamples=100).p_value <= 1
    assert 0 <= wilcoxon(a, b) <= 1


def test_holm_agrees_with_the_textbook_and_keeps_the_order() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_never_finds_more_than_the_plain_values_and_never_less_than_bonferroni(values: list[float]) -> None:
    corrected = holm(values)
    for plain, after in zip(values, corrected, strict=True):
        assert plain <= after <= min(1.0, len(values) * plain) + 1e-12


@pytest.mark.parametrize(("difference", "deviation"), [(0.5, 1.0), (0.05, 0.3), (0.2, 0.4)])
def test_the_examples_needed_have_the_power_they_promise(difference: float, deviation: float) -> None:
    n = examples_needed(difference, deviation, power=0.8)

    def power(size: int) -> float:
        shift = difference / deviation * size**0.5
        limit = stats.t.ppf(0.975, size - 1)
        return float(stats.nct.sf(limit, size - 1, shift) + stats.nct.cdf(-limit, size - 1, shift))

    assert power(n) == pytest.approx(0.8, abs=0.01)


@pytest.mark.parametrize("bad", [{"difference": 0.0}, {"deviation": 0.0}, {"power": 1.0}, {"level": 0.0}])
def test_examples_needed_refuses_what_makes_no_sense(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="got"):
        examples_needed(**{"difference": 0.1, "deviation": 0.5, **bad})


def test_the_detectable_difference_is_the_one_these_examples_are_enough_for() -> None:
    found = paired_bootstrap([0.0] * 200, (RNG.random(200) < 0.3).astype(float).tolist(), seed=0, n_resamples=20_000)
    least = detectable_difference(found)
    assert examples_needed(least, 0.3**0.5 * 0.7**0.5) == pytest.approx(200, rel=0.1)
