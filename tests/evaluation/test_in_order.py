"""Threads that hand their results out in order: what is begun, what comes out, and what a stop leaves behind."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptopt.errors import ConfigError, LMError
from promptopt.evaluation.in_order import AHEAD, in_order

DELAYS = st.lists(st.integers(0, 3), max_size=24)
PARALLEL = st.integers(1, 6)


def until(condition: Callable[[], bool], timeout_s: float = 5.0) -> None:
    """Wait for what another thread is about to do."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.0005)


def settled(values: list[int]) -> int:
    """Return the length of a list that other threads append to, once they have stopped."""
    length = -1
    while length != len(values):
        length = len(values)
        time.sleep(0.02)
    return length


@contextmanager
def opened(gate: threading.Event) -> Iterator[None]:
    """Let whatever waits at `gate` go in the end, even where an assertion fails."""
    try:
        yield
    finally:
        gate.set()


class Watched:
    """Work on items 0, 1, 2, ... that takes `delays[item]` steps of 0.3 ms and notes how it was called."""

    def __init__(self, delays: list[int]) -> None:
        self.delays = delays
        self.begun: list[int] = []
        self.running = 0
        self.most_running = 0
        self._lock = threading.Lock()

    def __call__(self, item: int) -> int:
        with self._lock:
            self.begun.append(item)
            self.running += 1
            self.most_running = max(self.most_running, self.running)
        time.sleep(self.delays[item] * 0.0003)
        with self._lock:
            self.running -= 1
        return item * item


@given(DELAYS, PARALLEL, st.none() | st.lists(st.integers(0, 24), max_size=4))
def test_results_come_in_order_and_each_item_is_worked_on_once(
    delays: list[int], parallel: int, stops: list[int] | None
) -> None:
    work = Watched(delays)
    assert list(in_order(work, range(len(delays)), parallel, stops)) == [n * n for n in range(len(delays))]
    assert sorted(work.begun) == list(range(len(delays)))
    assert work.most_running <= parallel


@given(DELAYS, PARALLEL, st.integers(0, 24))
@settings(max_examples=50)
def test_a_consumer_that_stops_anywhere_wastes_at_most_parallel_items(
    delays: list[int], parallel: int, taken: int
) -> None:
    work = Watched(delays)
    results = in_order(work, range(len(delays)), parallel)
    for _, _ in zip(range(taken), results, strict=False):
        assert max(work.begun) < taken + parallel
    results.close()
    begun = settled(work.begun) if taken and delays else 0
    # In order: what was begun is the first so many, without gaps.
    assert sorted(work.begun) == list(range(begun))
    assert begun <= min(taken, len(delays)) + (parallel if parallel > 1 and taken else 0)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=3).map(sorted), st.integers(0, 2), st.integers(2, 5))
@settings(max_examples=30)
def test_a_consumer_that_stops_where_it_said_wastes_at_most_parallel_items(
    stops: list[int], which: int, parallel: int
) -> None:
    stop = stops[min(which, len(stops) - 1)]
    work = Watched([0] * 40)
    results = in_order(work, range(40), parallel, stops)
    for _ in range(stop):
        next(results)
    results.close()
    assert stop <= settled(work.begun) <= stop + parallel


def test_items_run_ahead_to_where_the_consumer_may_stop_and_not_without_bound() -> None:
    gate = threading.Event()
    begun: list[int] = []

    def work(item: int) -> int:
        begun.append(item)
        if item == 0:
            gate.wait(5)
        return item

    with opened(gate):
        for stops, expected in ((None, 1 + 2), ((5, 30), 5 + 2), ((), 1 + AHEAD * 2)):
            gate.clear()
            begun.clear()
            results = in_order(work, range(40), 2, stops)
            first = threading.Thread(target=lambda results=results: next(results), daemon=True)
            first.start()
            until(lambda: bool(begun))
            assert settled(begun) == expected
            gate.set()
            first.join()
            results.close()


def test_an_error_comes_in_its_turn_and_only_once() -> None:
    gate = threading.Event()
    begun: list[int] = []
    broken = LMError("the server died")

    def work(item: int) -> int:
        begun.append(item)
        if item == 3:
            raise broken
        if item < 3:
            gate.wait(5)
        return item

    results = in_order(work, range(100), 4, ())
    with opened(gate):
        threading.Timer(0.03, gate.set).start()
        assert [next(results) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(LMError, match="the server died") as caught:
            next(results)
    assert caught.value is broken
    # Item 3 failed while 0 to 2 were still running, so nothing was begun after it.
    assert sorted(begun) == [0, 1, 2, 3]
    assert list(results) == []


def test_closing_waits_for_nobody_and_drops_what_still_runs() -> None:
    gate = threading.Event()
    begun: list[int] = []

    def work(item: int) -> int:
        begun.append(item)
        if item:
            gate.wait(5)
        return item

    with opened(gate):
        results = in_order(work, range(50), 3)
        assert next(results) == 0
        until(lambda: len(begun) >= 3)
        started = time.monotonic()
        results.close()
        assert time.monotonic() - started < 1
        threads = [thread for thread in threading.enumerate() if thread.name.startswith("promptopt-rows-")]
        assert threads
        assert all(thread.daemon for thread in threads)
        count = len(begun)
    until(lambda: not any(thread.is_alive() for thread in threads))
    assert len(begun) == count


def test_an_abandoned_generator_ends_its_threads() -> None:
    results = in_order(lambda item: item, range(50), 3)
    assert next(results) == 0
    threads = [thread for thread in threading.enumerate() if thread.name.startswith("promptopt-rows-")]
    del results
    until(lambda: not any(thread.is_alive() for thread in threads))


def test_one_at_a_time_needs_no_thread() -> None:
    here = threading.current_thread()
    assert set(in_order(lambda item: threading.current_thread(), range(5), 1)) == {here}
    assert set(in_order(lambda item: threading.current_thread(), range(1), 8)) == {here}
    assert here not in set(in_order(lambda item: threading.current_thread(), range(5), 2))


def test_each_item_runs_in_its_own_copy_of_the_consumers_context() -> None:
    variable: ContextVar[str] = ContextVar("variable", default="nobody's")
    token = variable.set("the consumer's")
    together = threading.Barrier(4)

    def work(item: int) -> tuple[str, str]:
        before = variable.get()
        variable.set(str(item))
        together.wait(5)
        return before, variable.get()

    try:
        assert list(in_order(work, range(8), 4)) == [("the consumer's", str(n)) for n in range(8)]
        assert variable.get() == "the consumer's"
    finally:
        variable.reset(token)


def test_parallel_is_checked() -> None:
    with pytest.raises(ConfigError, match="parallel is 0; allowed are whole numbers from 1"):
        next(in_order(lambda item: item, range(5), 0))


CHILD = """
import threading
from promptopt.evaluation.in_order import in_order
def work(item):
    if item == 0:
        print("running", flush=True)
    threading.Event().wait()
list(in_order(work, range(9), 3))
"""


def test_ctrl_c_ends_the_process_though_every_thread_is_stuck() -> None:
    command = [sys.executable, "-c", CHILD]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == "running\n"
            # The main thread may still be starting its threads; then it is interrupted there.
            child.send_signal(signal.SIGINT)
            _, errors = child.communicate(timeout=20)
        finally:
            child.kill()
    assert child.returncode == -signal.SIGINT
    assert "KeyboardInterrupt" in errors
