"""The engine's pure parts: batch shapes, the waiting line, the thread rule, text streams, per-call settings."""

import threading
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptopt.errors import BusyError
from promptopt.lm.llama_cpp.batching.batch_rule import ANY, INPUTS, BatchRule, find_rule, segments
from promptopt.lm.llama_cpp.batching.thread_rule import ThreadRule
from promptopt.lm.llama_cpp.batching.waiting import MAX_OVERTAKEN, WaitingLine
from promptopt.lm.llama_cpp.text_stream import TextStream
from promptopt.lm.lm_call import current_call, lm_call

RULES = st.sampled_from([ANY, BatchRule(2, 1), BatchRule(4, 4), BatchRule(8, 4), BatchRule(16, 16)])


@given(st.sets(st.integers(0, 31), min_size=1), RULES, st.integers(0, 6))
def test_segments_cover_every_lane_once_in_allowed_sizes(lanes: set[int], rule: BatchRule, gap: int) -> None:
    ranges = segments(sorted(lanes), 32, rule, gap)
    covered = [lane for low, high in ranges for lane in range(low, high)]
    assert len(covered) == len(set(covered))
    assert lanes <= set(covered)
    for low, high in ranges:
        assert 0 <= low < high <= 32
        assert rule.size(high - low) == high - low
        assert lanes & set(range(low, high))


def test_segments_fill_small_holes_and_skip_large_ones() -> None:
    assert segments([0, 1, 4], 16, ANY, 2) == [(0, 5)]
    assert segments([0, 1, 9], 16, ANY, 2) == [(0, 2), (9, 10)]
    assert segments([15], 16, BatchRule(8, 4), 2) == [(8, 16)]
    assert segments([0, 11], 16, BatchRule(8, 4), 2) == [(0, 8), (8, 16)]
    assert segments([0, 8, 15], 16, BatchRule(8, 4), 2) == [(0, 16)]


@pytest.mark.parametrize("least, step", [(1, 1), (2, 1), (4, 4), (8, 4), (16, 16)])
def test_the_least_demanding_rule_is_found(least: int, step: int) -> None:
    def digests(rows: int) -> list[str]:
        full = rows // step * step
        return [f"agreed {row % INPUTS}" if rows >= least and row < full else f"{rows} {row}" for row in range(rows)]

    assert find_rule(digests, 32) == BatchRule(least, step)


def test_without_agreement_batches_are_always_full() -> None:
    assert find_rule(lambda rows: [f"{rows} {row}" for row in range(rows)], 12) == BatchRule(12, 12)


@dataclass(eq=False)
class Item:
    name: str
    worth: int | None = 0
    overtaken: int = 0
    given_up: bool = field(default=False)


def test_the_line_serves_what_is_there_already_but_starves_nobody() -> None:
    line: WaitingLine[Item] = WaitingLine(1000)
    line.put(Item("patient"))
    served = []
    for number in range(MAX_OVERTAKEN + 2):
        line.put(Item(f"favourite {number}", worth=100))
        taken = line.take(lambda item: item.worth)
        assert taken is not None
        served.append(taken.name)
    assert served.index("patient") == MAX_OVERTAKEN
    assert served[:3] == ["favourite 0", "favourite 1", "favourite 2"]


def test_the_line_keeps_its_order_among_equals_and_waits_for_the_overtaken() -> None:
    line: WaitingLine[Item] = WaitingLine(10)
    for name in "abc":
        line.put(Item(name))
    assert [line.take(lambda item: item.worth).name for _ in range(3)] == ["a", "b", "c"]  # type: ignore[union-attr]
    blocked = Item("other weights", worth=None, overtaken=MAX_OVERTAKEN)
    line.put(blocked)
    line.put(Item("fits", worth=5))
    assert line.take(lambda item: item.worth) is None
    blocked.worth = 0
    assert line.take(lambda item: item.worth) is blocked


def test_the_line_is_bounded_and_forgets_what_was_given_up() -> None:
    line: WaitingLine[Item] = WaitingLine(2)
    first, second = Item("a"), Item("b")
    assert line.put(first)
    assert line.put(second)
    with pytest.raises(BusyError, match="2 requests are waiting"):
        line.put(Item("c"), wait=False)
    with pytest.raises(BusyError):
        line.put(Item("c"), timeout_s=0.01)
    entered = threading.Event()

    def put() -> None:
        line.put(Item("patient"))
        entered.set()

    thread = threading.Thread(target=put)
    thread.start()
    assert not entered.wait(0.05)
    first.given_up = True
    assert line.take(lambda item: item.worth) is second
    assert entered.wait(5)
    thread.join()
    assert [item.name for item in line.close()] == ["patient"]
    assert not line.put(Item("late"))


def test_fewer_threads_while_the_cores_are_held_and_all_again_later() -> None:
    now = [0.0]
    rule = ThreadRule(4, lambda: now[0])
    for _ in range(5):
        assert not rule.observe(16, 0.050)
    changes = [rule.observe(16, 4.0) for _ in range(3)]
    assert (changes, rule.threads) == ([False, False, True], 3)
    assert not rule.observe(16, 0.060)
    now[0] = 30.0
    assert rule.observe(16, 0.060)
    assert rule.threads == 4
    lone = ThreadRule(1, lambda: now[0])
    lone.observe(1, 0.01)
    assert not any(lone.observe(1, 9.0) for _ in range(10))


@given(
    st.text(alphabet="ab日", max_size=12),
    st.lists(st.text(alphabet="ab日", min_size=1, max_size=3), max_size=3),
    st.randoms(use_true_random=False),
)
def test_streamed_pieces_are_the_text(text: str, stops: list[str], rng: object) -> None:
    data = text.encode()
    stream = TextStream(stops)
    pieces = []
    at = 0
    while at < len(data):
        step = rng.randint(1, 3)  # type: ignore[attr-defined]
        done = stream.push(data[at : at + step])
        at += step
        pieces.append(stream.release(ended=done))
        if done:
            break
    pieces.append(stream.release(ended=True))
    assert "".join(pieces) == stream.text
    cuts = [text.find(stop) for stop in stops if stop in text]
    if not cuts:
        assert stream.text == text
    else:
        # A stop string is seen when it is complete, so one that began later may be the first to be seen.
        assert stream.text == text[: len(stream.text)]
        assert not any(stop in stream.text for stop in stops)


def test_a_call_starts_all_its_answers_together() -> None:
    class Started:
        def __init__(self, seed: int) -> None:
            self.seed, self.cancelled = seed, False

        def cancel(self) -> None:
            self.cancelled = True

    started: list[Started] = []

    def start(seed: int) -> Started:
        started.append(Started(seed))
        return started[-1]

    with lm_call(None, 3, {}):
        first = current_call().next_answer(7, start)
        assert (first.seed, len(started)) == (7, 3)
        assert len({item.seed for item in started}) == 3
        assert current_call().next_answer(7, start) is started[1]
    assert [item.cancelled for item in started] == [False, False, True]
    assert current_call().next_answer(7, start).seed == 7
    with lm_call(1, None, {}):
        assert current_call().next_answer(7, start).seed != 7


def test_text_stream_joins_bytes_and_finds_stops_anywhere() -> None:
    text = "東京は\n日本の首都です。END of it 🗼"
    raw = text.encode()
    for width in (1, 2, 3, 5, 7):
        pieces = [raw[at : at + width] for at in range(0, len(raw), width)]
        stream = TextStream()
        assert not any(stream.push(piece) for piece in pieces)
        assert stream.text == text
        stream = TextStream(["END", "首都で", "zz"])
        assert any(stream.push(piece) for piece in pieces)
        assert stream.text == "東京は\n日本の"


def test_text_stream_leaves_out_half_characters_and_marks_broken_ones() -> None:
    stream = TextStream()
    stream.push("東".encode()[:2])
    assert stream.text == ""
    stream = TextStream()
    stream.push(b"a\xff")
    stream.push(b"b")
    assert stream.text == "a\ufffdb"
