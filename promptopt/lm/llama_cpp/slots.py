"""Which resident sequence a prompt starts from. Pure bookkeeping over token ids; knows no model.

A slot is one sequence of the KV cache. Slots remember the tokens they hold, so a prompt is computed only from where it
departs from the best of them: in place, or after copying that slot's beginning into another one.

Reuse is exact on the CPU: llama.cpp's matrix kernels treat rows in groups of four and switch to others for small
batches, so a token's numbers depend on how it was batched. Prompts are therefore cut only at multiples of
`REUSE_STEP`, never computed in batches below `MIN_BATCH`, and generated tokens (computed one by one) are not reused.
Then a prompt gets the same bits from wherever it starts; measured on f32, f16, bf16, q8_0, q6_k, q5_k_m, q4_k_m, q4_0.
"""

from dataclasses import dataclass, field

REUSE_STEP = 4
MIN_BATCH = 16
MIN_COPY_TOKENS = 64
"""A copy moves a slot's whole memory; for fewer tokens than this, computing them again is as fast."""


@dataclass(slots=True)
class Slot:
    """One resident sequence.

    Attributes:
        index: the sequence id in the KV cache.
        tokens: the prompt whose keys and values are in the cache, from position 0.
        last_used: clock of its last use; 0 = never.
    """

    index: int
    tokens: list[int] = field(default_factory=list)
    last_used: int = 0


@dataclass(frozen=True, slots=True)
class ReusePlan:
    """Where a prompt runs and what it finds there.

    Attributes:
        slot: index of the slot to run in.
        copy_from: index of the slot whose beginning is copied first; None = no copy.
        keep: tokens that need not be computed, a multiple of `REUSE_STEP`; at least `MIN_BATCH` tokens always are.
    """

    slot: int
    copy_from: int | None
    keep: int


def common_prefix(left: list[int], right: list[int]) -> int:
    """Return how many leading tokens two lists share."""
    limit = min(len(left), len(right))
    # Comparing slices runs in C: long equal prefixes are the usual case.
    if left[:limit] == right[:limit]:
        return limit
    low, high = 0, limit
    while high - low > 1:
        middle = (low + high) // 2
        if left[low:middle] == right[low:middle]:
            low = middle
        else:
            high = middle
    return low


class SlotTable:
    """All slots of one context, least recently used first out."""

    def __init__(self, count: int) -> None:
        self.slots = [Slot(index) for index in range(count)]
        self._clock = 0

    def plan(self, prompt: list[int]) -> ReusePlan:
        """Choose a slot for `prompt` (at least one token); changes nothing.

        Empty slots are filled first, so that prefixes which alternate each get a home. Then a slot is continued in
        place where it mostly is this prefix, and otherwise the least recently used one gives way.
        """
        shared = [common_prefix(slot.tokens, prompt) for slot in self.slots]
        best = max(shared)
        oldest = min(self.slots, key=lambda slot: slot.last_used)
        home = min((s for s in self.slots if shared[s.index] == best), key=lambda slot: slot.last_used)
        lost = len(home.tokens) - best
        if best == 0:
            target = oldest
        elif lost < MIN_COPY_TOKENS or (oldest.tokens and best >= lost):
            target = home
        else:
            target = oldest
        gain = best - shared[target.index]
        copy_from = home.index if gain >= MIN_COPY_TOKENS else None
        keep = best if copy_from is not None else shared[target.index]
        keep = max(0, min(keep, len(prompt) - MIN_BATCH))
        return ReusePlan(target.index, copy_from, keep - keep % REUSE_STEP)

    def hold(self, index: int, prompt: list[int]) -> None:
        """Record which prompt a slot holds now, and that it was just used."""
        self._clock += 1
        slot = self.slots[index]
        # A shorter prompt was one small batch: others must not build on its numbers.
        slot.tokens, slot.last_used = (prompt if len(prompt) >= MIN_BATCH else []), self._clock

    def forget(self, index: int) -> None:
        """Record that a slot holds nothing."""
        self.slots[index].tokens = []
        self.slots[index].last_used = 0


def batches(start: int, end: int, size: int) -> list[tuple[int, int]]:
    """Cut positions `start..end` into batches of at most `size`, none below `MIN_BATCH` unless all of it is."""
    cuts = []
    while end - start > size:
        take = size if end - start - size >= MIN_BATCH else size - MIN_BATCH
        cuts.append((start, start + take))
        start += take
    return [*cuts, (start, end)]
