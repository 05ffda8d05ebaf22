"""Which lane a prompt runs in and where it starts. Pure bookkeeping; knows no model.

A lane is one sequence of the KV cache with a stream of its own. Lanes remember the prompt they hold, in a radix tree
per set of weights; a prompt starts after the longest beginning that some lane holds, in place or after a copy of it.

Reuse is exact on the CPU: llama.cpp's matrix kernels treat rows in groups of four and switch to others for small
batches, so a token's numbers depend on how it was batched. Prompts are therefore cut only at multiples of
`REUSE_STEP`, never computed in batches below `MIN_BATCH`, and generated tokens (computed in other batches) are not
reused. Then a prompt gets the same bits from wherever it starts; measured on f32, f16,
bf16, q8_0, q6_k, q5_k_m, q4_k_m, q4_0.
"""

from dataclasses import dataclass

from promptopt.lm.llama_cpp.batching.prefix_tree import TOKEN_BYTES, PrefixTree

REUSE_STEP = 4
MIN_BATCH = 16
MIN_COPY_TOKENS = 64
"""A copy moves a lane's whole memory; for fewer tokens than this, computing them again is as fast."""


@dataclass(frozen=True, slots=True)
class LanePlan:
    """Where a prompt runs and what it finds there.

    Attributes:
        lane: index of the lane to run in.
        copy_from: index of the lane whose beginning is copied first; None = no copy.
        keep: tokens that need not be computed, a multiple of `REUSE_STEP`; at least `MIN_BATCH` tokens always are.
    """

    lane: int
    copy_from: int | None
    keep: int


@dataclass(slots=True)
class _Lane:
    index: int
    weights: str = ""
    tokens: int = 0
    busy: bool = False
    last_used: int = 0


class LanePool:
    """All lanes of one context.

    Args:
        count: lanes.
        reuse: False computes every prompt from its start.
        whole: lanes can be copied but not cut back (recurrent states): a prompt can only start after all that a lane
            holds, and a lane that generates holds nothing to start from.
    """

    def __init__(self, count: int, *, reuse: bool = True, whole: bool = False) -> None:
        self._lanes = [_Lane(index) for index in range(count)]
        self._trees: dict[str, PrefixTree] = {}
        self._reuse = reuse
        self._whole = whole
        self._clock = 0

    @property
    def count(self) -> int:
        """Number of lanes."""
        return len(self._lanes)

    def held(self, index: int) -> int:
        """Tokens of the prompt that a lane holds."""
        return self._lanes[index].tokens

    def reusable(self, key: bytes, weights: str = "") -> int:
        """Return how many tokens of a prompt would not be computed if it came now."""
        if not self._reuse:
            return 0
        if self._whole:
            return self._tree(weights).match_whole(key).length
        return _exact_cut(self._tree(weights).match(key).length, len(key) // TOKEN_BYTES)

    def plan(self, key: bytes, weights: str = "") -> LanePlan | None:
        """Choose a lane for a prompt; None if all are taken. Changes nothing.

        A lane that holds the longest beginning is continued in place if little is lost with its tail; otherwise that
        beginning is copied into the lane that loses least: an empty one, one whose tokens others hold too, or the
        least recently used.
        """
        idle = [lane for lane in self._lanes if not lane.busy]
        if not idle:
            return None
        victim = min(idle, key=self._loss)
        if not self._reuse:
            return LanePlan(victim.index, None, 0)
        if self._whole:
            return self._plan_whole(idle, key, weights)
        match = self._tree(weights).match(key)
        if not match.length:
            return LanePlan(victim.index, None, 0)
        n_prompt = len(key) // TOKEN_BYTES
        keep = _exact_cut(match.length, n_prompt)
        homes = [lane for lane in idle if lane.index in match.lanes]
        if homes:
            home = min(homes, key=self._loss)
            lost = home.tokens - match.length
            if lost < MIN_COPY_TOKENS or self._loss(victim)[0] > 0:
                return LanePlan(home.index, None, keep)
        if victim.index in match.lanes:
            return LanePlan(victim.index, None, keep)
        if keep < MIN_COPY_TOKENS:
            return LanePlan(victim.index, None, 0)
        return LanePlan(victim.index, min(match.lanes), keep)

    def _plan_whole(self, idle: list[_Lane], key: bytes, weights: str) -> LanePlan:
        match = self._tree(weights).match_whole(key)
        others = [lane for lane in idle if lane.index not in match.lanes]
        if not match.length:
            return LanePlan(min(idle, key=self._loss).index, None, 0)
        if others:
            return LanePlan(min(others, key=self._loss).index, min(match.lanes), match.length)
        return LanePlan(idle[0].index, None, match.length)

    def spare(self) -> int | None:
        """Return the idle lane that loses least if something else is put there; None if all are taken."""
        idle = [lane for lane in self._lanes if not lane.busy]
        return min(idle, key=self._loss).index if idle else None

    def _loss(self, lane: _Lane) -> tuple[int, int, int]:
        """Order lanes by what giving them up costs: nothing, then by the time since they were used."""
        tail = self._tree(lane.weights).own_tail(lane.index) if lane.tokens else 0
        return (int(tail >= MIN_COPY_TOKENS), lane.last_used, lane.index)

    def take(self, plan: LanePlan) -> None:
        """Mark the planned lane as taken; what it held is forgotten until `hold`."""
        self.forget(plan.lane)
        self._lanes[plan.lane].busy = True

    def hold(self, index: int, key: bytes, weights: str = "") -> None:
        """Record which prompt a lane has computed by now."""
        lane = self._lanes[index]
        # A shorter prompt was one small batch: others must not build on its numbers.
        if len(key) < MIN_BATCH * TOKEN_BYTES or not self._reuse:
            return
        self._tree(weights).insert(index, key)
        lane.weights, lane.tokens = weights, len(key) // TOKEN_BYTES
        self._touch(lane)

    def release(self, index: int) -> None:
        """Give a lane back; the prompt it holds stays resident."""
        self._lanes[index].busy = False
        self._touch(self._lanes[index])

    def forget(self, index: int) -> None:
        """Record that a lane holds nothing."""
        lane = self._lanes[index]
        self._tree(lane.weights).remove(index)
        lane.tokens = 0

    def forget_weights(self, part: str) -> None:
        """Forget every prompt computed with weights whose key contains `part`."""
        for weights in [weights for weights in self._trees if part in weights]:
            for lane in self._lanes:
                if lane.weights == weights:
                    self.forget(lane.index)
            del self._trees[weights]

    @property
    def unique_tokens(self) -> int:
        """Resident prompt tokens, shared ones counted once per set of weights."""
        return sum(tree.unique_tokens for tree in list(self._trees.values()))

    def _tree(self, weights: str) -> PrefixTree:
        return self._trees.setdefault(weights, PrefixTree())

    def _touch(self, lane: _Lane) -> None:
        self._clock += 1
        lane.last_used = self._clock


def _exact_cut(shared: int, n_prompt: int) -> int:
    """Return how many shared tokens may be kept without changing a bit."""
    keep = max(0, min(shared, n_prompt - MIN_BATCH))
    return keep - keep % REUSE_STEP


def chunks(start: int, end: int, size: int) -> list[tuple[int, int]]:
    """Cut positions `start..end` into batches of at most `size`, none below `MIN_BATCH` unless all of it is.

    Args:
        size: a multiple of `REUSE_STEP`, at least twice `MIN_BATCH`.
    """
    cuts = []
    while end - start > size:
        take = size if end - start - size >= MIN_BATCH else size - MIN_BATCH
        cuts.append((start, start + take))
        start += take
    return [*cuts, (start, end)]
