"""How fast it goes: rates over the last half minute, shares over everything, and what people read of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptopt.evaluation.throughput import LEAST_RECORDS, WINDOW_S, Speed, Throughput, duration
from promptopt.records import ExampleRecord, Outcome


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def record(
    calls: int = 1, cached: int = 0, prompt: int = 100, computed: int = 25, generated: int = 10
) -> ExampleRecord:
    return ExampleRecord(
        example_id="a", outcome=Outcome.SCORED, score=1.0, calls=calls, cached_calls=cached, prompt_tokens=prompt,
        prompt_tokens_computed=computed, completion_tokens=50, completion_tokens_computed=generated,
    )  # fmt: skip


def test_before_the_first_record_nothing_is_said() -> None:
    clock = Clock()
    throughput = Throughput(clock)
    assert throughput.speed(10) == Speed()
    clock.now += 5
    assert throughput.speed(10).text == ""


def test_rates_shares_and_time_left() -> None:
    clock = Clock()
    throughput = Throughput(clock)
    for number in range(10):
        clock.now += 0.5
        throughput.add(record(calls=2, cached=1 if number < 8 else 0))
    assert throughput.speed(20) == Speed(
        calls_per_s=4.0, tokens_per_s=20.0, cached_share=8 / 20, computed_share=0.25, left_s=10.0
    )
    assert throughput.speed(20).text == "10 s left, 4.0 calls/s, 20 tokens/s, 40% cached, 25% of prompts computed"
    assert throughput.speed(0).left_s == 0


def test_a_fast_beginning_is_forgotten() -> None:
    clock = Clock()
    throughput = Throughput(clock)
    for _ in range(1000):
        clock.now += 0.001
        throughput.add(record(cached=1, computed=0, generated=0))
    for _ in range(40):
        clock.now += 2
        throughput.add(record())
    speed = throughput.speed(10)
    assert speed.calls_per_s == pytest.approx(0.5)
    assert speed.left_s == pytest.approx(20)
    assert speed.cached_share == pytest.approx(1000 / 1040)


def test_slow_records_are_judged_by_the_last_few() -> None:
    clock = Clock()
    throughput = Throughput(clock)
    for seconds in [1.0] * 20 + [WINDOW_S * 2] * LEAST_RECORDS:
        clock.now += seconds
        throughput.add(record())
    assert throughput.speed(1).left_s == pytest.approx(WINDOW_S * 2)


def test_records_without_calls_have_a_time_left_and_no_rates() -> None:
    clock = Clock()
    throughput = Throughput(clock)
    clock.now += 2
    throughput.add(record(calls=0, prompt=0, computed=0, generated=0))
    assert throughput.speed(100).text == "3 min left"


def test_a_clock_that_stands_still_divides_nothing_by_zero() -> None:
    throughput = Throughput(Clock())
    throughput.add(record())
    assert throughput.speed(5) == Speed()


@given(st.lists(st.tuples(st.floats(0.001, 100), st.integers(0, 3)), min_size=1, max_size=60), st.integers(0, 1000))
def test_shares_are_shares_and_nothing_is_negative(steps: list[tuple[float, int]], remaining: int) -> None:
    clock = Clock()
    throughput = Throughput(clock)
    for seconds, calls in steps:
        clock.now += seconds
        throughput.add(record(calls=calls, cached=calls // 2))
        speed = throughput.speed(remaining)
        assert speed.calls_per_s >= 0
        assert speed.left_s is not None
        assert speed.left_s >= 0
        assert speed.cached_share is None or 0 <= speed.cached_share <= 1
        assert len(speed.text) < 90
    assert throughput.records == len(steps)


def test_durations_as_people_say_them() -> None:
    assert [duration(s) for s in (0, 0.4, 99.4, 100, 5940, 6000, 11100)] == [
        "0 s", "0 s", "99 s", "2 min", "99 min", "1 h 40 min", "3 h 5 min",
    ]  # fmt: skip
