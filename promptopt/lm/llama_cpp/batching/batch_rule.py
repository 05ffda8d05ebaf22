"""Which batch shapes give a row the same bits, found out by trying: the ground of batch-invariant answers.

llama.cpp's kernels choose their order of summation by the number of rows: a token computed alone, or as one of sixteen,
may differ in its last bits. Rows in batches of certain sizes agree, though, whatever else is in the batch. Which sizes
those are depends on the CPU, the build and the tensor types, so it is measured once and remembered.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from promptopt.user_cache import read_note, user_cache_dir, write_note

CANDIDATES = ((1, 1), (2, 1), (4, 4), (8, 1), (8, 4), (8, 8), (16, 4), (16, 16))
INPUTS = 5
PROBE_SIZES = (*range(1, 17), 20, 24, 32)
"""Batches that are tried; all of a candidate's sizes among them must agree."""


@dataclass(frozen=True, slots=True)
class BatchRule:
    """Batches that agree: those of at least `least` rows whose number is a multiple of `step`."""

    least: int
    step: int

    def size(self, rows: int) -> int:
        """Return the smallest agreeing batch that has room for `rows`."""
        wanted = max(rows, self.least)
        return -(-wanted // self.step) * self.step

    @property
    def name(self) -> str:
        """What the response cache tells answers apart by."""
        return "any" if (self.least, self.step) == (1, 1) else f">={self.least} by {self.step}"


ANY = BatchRule(1, 1)


def find_rule(digests: Callable[[int], list[str]], lanes: int) -> BatchRule:
    """Return the least demanding rule under which all rows agree.

    Args:
        digests: what came out of each row of a batch of n rows. Rows whose numbers are equal modulo `INPUTS` compute
            the same, so that both the place of a row and the size of its batch are tried, on several inputs.
        lanes: rows there can be at most; a batch that is always this large agrees with itself as the last resort.
    """
    seen = {rows: digests(rows) for rows in PROBE_SIZES if rows <= lanes}
    for least, step in CANDIDATES:
        allowed = [found for rows, found in seen.items() if rows >= least and rows % step == 0]
        if allowed and all(len({d for found in allowed for d in found[n::INPUTS]}) <= 1 for n in range(INPUTS)):
            return BatchRule(least, step)
    return BatchRule(lanes, lanes)


def remembered_rule(parts: list[str], lanes: int, measure: Callable[[], BatchRule]) -> BatchRule:
    """Return the rule for a machine, build and kind of model, measuring it only the first time."""
    key = "\n".join([*parts, str(min(lanes, PROBE_SIZES[-1]))])
    path = user_cache_dir() / "batch_rule" / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.json"
    note = read_note(path)
    if note is not None and isinstance(note.get("least"), int) and isinstance(note.get("step"), int):
        return BatchRule(note["least"], note["step"])
    rule = measure()
    write_note(path, {"least": rule.least, "step": rule.step, "key": key})
    return rule


def segments(lanes: list[int], total: int, rule: BatchRule, gap: int) -> list[tuple[int, int]]:
    """Return the batches, as ranges of lanes, that decode one token of each lane of `lanes`.

    llama.cpp computes neighbouring lanes in one pass and starts a new pass at a hole, so small holes are filled with
    rows whose result is thrown away, and batches are grown to sizes that the rule allows.

    Args:
        lanes: ascending.
        total: lanes there are; a size that the rule allows.
        gap: holes of up to this many lanes are cheaper to fill than to skip.
    """
    ranges: list[tuple[int, int]] = []
    for lane in lanes:
        if ranges and lane - ranges[-1][1] <= gap:
            ranges[-1] = _grown(ranges[-1][0], lane + 1, total, rule)
        else:
            ranges.append(_grown(lane, lane + 1, total, rule))
        while len(ranges) > 1 and ranges[-1][0] < ranges[-2][1]:
            (low, _), (_, high) = ranges[-2], ranges[-1]
            ranges[-2:] = [_grown(low, high, total, rule)]
    return ranges


def _grown(low: int, high: int, total: int, rule: BatchRule) -> tuple[int, int]:
    size = min(rule.size(high - low), total)
    high = min(max(high, low + size), total)
    return min(low, high - size), high
