"""Slots and text streams: the engine's pure parts."""

import itertools
import random

import pytest

from promptopt.lm.llama_cpp.slots import MIN_BATCH, REUSE_STEP, SlotTable, batches, common_prefix
from promptopt.lm.llama_cpp.text_stream import TextStream


def test_common_prefix() -> None:
    rng = random.Random(0)
    for _ in range(500):
        left = [rng.randrange(2) for _ in range(rng.randrange(12))]
        right = [rng.randrange(2) for _ in range(rng.randrange(12))]
        expected = next((n for n, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), None)
        assert common_prefix(left, right) == (min(len(left), len(right)) if expected is None else expected)


def run(table: SlotTable, prompt: list[int]) -> int:
    plan = table.plan(prompt)
    assert plan.keep % REUSE_STEP == 0
    assert plan.keep == 0 or len(prompt) - plan.keep >= MIN_BATCH
    source = table.slots[plan.slot if plan.copy_from is None else plan.copy_from]
    assert source.tokens[: plan.keep] == prompt[: plan.keep]
    table.hold(plan.slot, prompt)
    return plan.keep


def test_alternating_prefixes_keep_their_homes() -> None:
    rng = random.Random(0)
    head = [rng.randrange(100) for _ in range(300)]
    bodies = [[rng.randrange(100) for _ in range(100)] for _ in range(3)]
    table = SlotTable(4)
    kept = []
    for number in range(60):
        prompt = head + bodies[number % 3] + [rng.randrange(100) for _ in range(50)]
        kept.append(run(table, prompt))
    assert min(kept[6:]) >= 396


def test_many_prefixes_evict_the_oldest() -> None:
    rng = random.Random(0)
    prefixes = [[number] * 200 for number in range(6)]
    table = SlotTable(4)
    for prefix in prefixes:
        assert run(table, prefix + [rng.randrange(100) for _ in range(20)]) == 0
    assert run(table, prefixes[5] + [7] * 20) == 200
    assert run(table, prefixes[0] + [7] * 20) == 0


def test_random_plans_are_sound() -> None:
    rng = random.Random(1)
    table = SlotTable(3)
    for _ in range(2000):
        run(table, [rng.randrange(2) for _ in range(rng.randrange(1, 120))])


def test_one_slot() -> None:
    table = SlotTable(1)
    assert run(table, list(range(100))) == 0
    assert run(table, [*range(80), *range(50)]) == 80
    assert run(table, [1]) == 0
    assert run(table, [1]) == 0


@pytest.mark.parametrize(("start", "end"), [(0, 1), (0, 512), (0, 513), (0, 1030), (4, 517), (500, 1600), (0, 528)])
def test_batches(start: int, end: int) -> None:
    cuts = batches(start, end, 512)
    assert cuts[0][0] == start
    assert cuts[-1][1] == end
    assert all(a[1] == b[0] for a, b in itertools.pairwise(cuts))
    assert all(b - a <= 512 for a, b in cuts)
    if end - start >= MIN_BATCH:
        assert all(b - a >= MIN_BATCH for a, b in cuts)


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
