"""The prefix tree and the lanes against slow references: random prompts, takers, endings and forgettings."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from promptopt.lm.llama_cpp.batching.lanes import MIN_BATCH, REUSE_STEP, LanePool, chunks
from promptopt.lm.llama_cpp.batching.prefix_tree import PrefixTree, shared_tokens, token_key

Prompt = tuple[int, ...]
PROMPTS = st.lists(st.integers(0, 2), max_size=12).map(tuple)


def common(left: Prompt, right: Prompt) -> int:
    return next((n for n, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right)))


@given(PROMPTS, PROMPTS)
def test_shared_tokens(left: Prompt, right: Prompt) -> None:
    assert shared_tokens(token_key(left), token_key(right)) == common(left, right)


class TreeAgainstList(RuleBasedStateMachine):
    """The tree answers what a list of prompts answers."""

    def __init__(self) -> None:
        super().__init__()
        self.tree = PrefixTree()
        self.held: dict[int, Prompt] = {}

    @rule(lane=st.integers(0, 5), prompt=PROMPTS)
    def insert(self, lane: int, prompt: Prompt) -> None:
        self.tree.insert(lane, token_key(prompt))
        self.held.pop(lane, None)
        if prompt:
            self.held[lane] = prompt

    @rule(lane=st.integers(0, 5))
    def remove(self, lane: int) -> None:
        self.tree.remove(lane)
        self.held.pop(lane, None)

    @rule(prompt=PROMPTS)
    def match(self, prompt: Prompt) -> None:
        shared = {lane: common(held, prompt) for lane, held in self.held.items()}
        best = max(shared.values(), default=0)
        found = self.tree.match(token_key(prompt))
        assert found.length == best
        if best:
            assert found.lanes == {lane for lane, length in shared.items() if length == best}

    @invariant()
    def sizes(self) -> None:
        prefixes = {held[:end] for held in self.held.values() for end in range(1, len(held) + 1)}
        assert self.tree.unique_tokens == len(prefixes)
        for lane, held in self.held.items():
            others = max((common(held, other) for key, other in self.held.items() if key != lane), default=0)
            assert self.tree.own_tail(lane) == len(held) - others
        # No chain of single children: the tree is as small as its content.
        ends = set(map(id, self.tree._ends.values()))
        stack = list(self.tree._root.children.values())
        while stack:
            node = stack.pop()
            assert node.lanes
            assert len(node.children) != 1 or id(node) in ends
            stack.extend(node.children.values())


TreeAgainstList.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestTreeAgainstList = TreeAgainstList.TestCase


class Reference:
    """What the lanes of a context would really hold."""

    def __init__(self, count: int) -> None:
        self.pool = LanePool(count)
        self.content: list[tuple[str, Prompt]] = [("", ())] * count
        self.busy: set[int] = set()

    def start(self, prompt: Prompt, weights: str) -> int | None:
        key = token_key(prompt)
        promised = self.pool.reusable(key, weights)
        plan = self.pool.plan(key, weights)
        if plan is None:
            assert len(self.busy) == self.pool.count
            return None
        assert plan.lane not in self.busy
        assert plan.keep <= promised
        assert plan.keep % REUSE_STEP == 0
        assert plan.keep == 0 or len(prompt) - plan.keep >= MIN_BATCH
        source = self.content[plan.lane if plan.copy_from is None else plan.copy_from]
        if plan.keep:
            assert source[0] == weights, "keys and values of other weights"
            assert source[1][: plan.keep] == prompt[: plan.keep]
        self.pool.take(plan)
        self.busy.add(plan.lane)
        self.content[plan.lane] = (weights, prompt)
        self.pool.hold(plan.lane, key, weights)
        return plan.keep

    def end(self, lane: int) -> None:
        self.busy.discard(lane)
        self.pool.release(lane)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 6))
def test_lanes_never_promise_what_they_do_not_hold(seed: int, count: int) -> None:
    rng = random.Random(seed)
    heads = [tuple(rng.randrange(50) for _ in range(rng.choice([0, 40, 100, 200]))) for _ in range(3)]
    reference = Reference(count)
    for _ in range(40):
        if reference.busy and rng.random() < 0.5:
            reference.end(rng.choice(sorted(reference.busy)))
        prompt = rng.choice(heads) + tuple(rng.randrange(50) for _ in range(rng.randint(1, 90)))
        reference.start(prompt, rng.choice(["", "lora"]))
    reference.pool.forget_weights("lora")
    assert reference.pool.reusable(token_key(heads[2] + (1,) * 20), "lora") == 0


def test_alternating_prefixes_keep_their_homes() -> None:
    rng = random.Random(0)
    head = tuple(rng.randrange(100) for _ in range(300))
    bodies = [tuple(rng.randrange(100) for _ in range(100)) for _ in range(3)]
    reference = Reference(4)
    kept = []
    for number in range(60):
        prompt = head + bodies[number % 3] + tuple(rng.randrange(100) for _ in range(50))
        kept.append(reference.start(prompt, ""))
        reference.end(max(reference.busy))
    assert kept[0] == 0
    assert kept[1] == kept[2] == 300
    assert set(kept[6:]) == {400}


def test_a_long_lane_does_not_give_way_while_an_empty_one_is_there() -> None:
    reference = Reference(2)
    long = tuple(range(200))
    reference.start(long, "")
    reference.end(0)
    assert reference.start(tuple(range(100)) + (7,) * 30, "") == 100
    reference.end(1)
    assert reference.start((*long, *range(30)), "") == 200


@given(st.integers(0, 3), st.integers(1, 3000), st.sampled_from([32, 64, 512]))
def test_chunks_are_never_small(start: int, length: int, size: int) -> None:
    begin = start * REUSE_STEP
    cuts = chunks(begin, begin + length, size)
    assert [cut[0] for cut in cuts] == [begin, *(cut[1] for cut in cuts[:-1])]
    assert cuts[-1][1] == begin + length
    for low, high in cuts:
        assert low % REUSE_STEP == 0
        assert high - low <= size
        assert high - low >= min(MIN_BATCH, length)
