"""Runs one workload on all sides in alternating rounds and keeps the raw numbers."""

import statistics
import time
from dataclasses import asdict, dataclass, field
from typing import Any

from engine_bench.drive import Answer
from engine_bench.sides import OURS, REFERENCE, SIDES, Setup, Side, SideMissing
from engine_bench.workloads import WORKLOADS, Words, Workload, text_tokens

from promptopt.lm.cost import CostModel, unique_tokens
from promptopt.lm.llama_cpp.local_chat import LocalChat
from promptopt.lm.llama_cpp.rates import OWN_TOKENS, measure_rates

WARM_UP_SEED = 1_000_000


@dataclass(slots=True)
class SideNumbers:
    """What one side did in each round.

    Attributes:
        seconds: from the first request to the last answer.
        same: calls whose greedy answer equals plain Llama's.
        generated: tokens.
        computed: prompt tokens; None where the side does not say.
        kv_bytes: see `Side.kv_bytes`.
    """

    seconds: list[float] = field(default_factory=list)
    same: list[int] = field(default_factory=list)
    generated: list[int] = field(default_factory=list)
    computed: list[int | None] = field(default_factory=list)
    kv_bytes: int | None = None


@dataclass(slots=True)
class WorkloadNumbers:
    """All sides on one workload.

    Attributes:
        rates: per round, measured just before promptopt's turn.
        unique: per round, prompt tokens with common beginnings counted once.
        resident: per round, prompt tokens that promptopt's engine kept at the end, shared ones counted once.
        predicted: per round, seconds by the cost model.
        left_out: side -> why it did not run.
    """

    name: str
    title: str
    calls: int
    rates: list[CostModel] = field(default_factory=list)
    prompt_tokens: list[int] = field(default_factory=list)
    unique: list[int] = field(default_factory=list)
    resident: list[int] = field(default_factory=list)
    predicted: list[float] = field(default_factory=list)
    sides: dict[str, SideNumbers] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    def seconds(self, side: str) -> float:
        """Return the median of a side's rounds."""
        return statistics.median(self.sides[side].seconds)

    def ratio(self, side: str, other: str) -> float:
        """Return how many times as fast `side` is as `other`: the median over rounds."""
        pairs = zip(self.sides[side].seconds, self.sides[other].seconds, strict=True)
        return statistics.median(theirs / mine for mine, theirs in pairs)

    @property
    def best_peer(self) -> str | None:
        """The fastest side that is not ours."""
        peers = [side for side in self.sides if side not in OURS]
        return min(peers, key=self.seconds, default=None)

    def as_json(self) -> dict[str, Any]:
        """Return everything as plain data."""
        return {**asdict(self), "best_peer": self.best_peer}


class Sides:
    """The open sides of one model; closes them all."""

    def __init__(self, setup: Setup, names: list[str]) -> None:
        self.setup = setup
        self.open: dict[str, Side] = {}
        self.left_out: dict[str, str] = {}
        for name in names:
            try:
                self.open[name] = SIDES[name](setup)
            except SideMissing as reason:
                self.left_out[name] = str(reason)
                print(f"{name} is left out: {reason}", flush=True)

    def close(self) -> None:
        for side in self.open.values():
            side.close()


def run_workload(sides: Sides, name: str, *, scale: float, pairs: int) -> WorkloadNumbers:
    """Run `pairs` rounds of one workload; in every second round the sides take turns in reverse order.

    Each round has new prompts. Before the first one each side answers a few calls untimed. In every round the rates of
    the cost model are measured.
    """
    chat, make = sides.setup.chat, WORKLOADS[name]
    tokens = text_tokens(chat)
    numbers, able = _warmed_up(sides, make(Words(tokens, WARM_UP_SEED), scale))
    for number in range(pairs):
        workload = make(Words(tokens, number), scale)
        answers: dict[str, list[Answer]] = {}
        for side in sorted(able, key=list(able).index, reverse=bool(number % 2)):
            if side == OURS[0]:
                numbers.rates.append(_rates(chat, workload))
            started = time.perf_counter()
            answers[side] = able[side].run(workload)
            numbers.sides[side].seconds.append(time.perf_counter() - started)
            if side == OURS[0]:
                numbers.resident.append(chat.stats().resident_tokens)
        _count(numbers, answers, sides.setup)
    for side, opened in able.items():
        numbers.sides[side].kv_bytes = opened.kv_bytes()
    return numbers


def _warmed_up(sides: Sides, workload: Workload) -> tuple[WorkloadNumbers, dict[str, Side]]:
    """Return empty numbers and the sides that can run this workload, in order."""
    left_out, able = dict(sides.left_out), dict(sides.open)
    for name, side in sides.open.items():
        try:
            side.run(workload.beginning(2))
        except SideMissing as reason:
            left_out[name] = str(reason)
            del able[name]
    numbers = WorkloadNumbers(workload.name, workload.title, len(workload.calls), left_out=left_out)
    numbers.sides = {name: SideNumbers() for name in able}
    return numbers, able


def _rates(chat: LocalChat, workload: Workload) -> CostModel:
    """Measure with as many requests at once, and about as long prompts, as the workload has."""
    length = int(statistics.median(len(call.head) + len(call.tail) for call in workload.calls))
    running = min(workload.clients, chat.parallel)
    return measure_rates(chat, running=running, shared_tokens=max(OWN_TOKENS, length - OWN_TOKENS), rounds=1)


def _count(numbers: WorkloadNumbers, answers: dict[str, list[Answer]], setup: Setup) -> None:
    """Add what one round's answers say."""
    ours = answers.get(OURS[0]) or answers[REFERENCE]
    prompts = [answer.prompt for answer in ours]
    generated = sum(len(answer.tokens) for answer in ours)
    numbers.prompt_tokens.append(sum(map(len, prompts)))
    numbers.unique.append(unique_tokens(prompts))
    if numbers.rates:
        numbers.predicted.append(numbers.rates[-1].price(prompts, generated))
    for side, made in answers.items():
        computed = [answer.computed for answer in made]
        whole = None if any(count is None for count in computed) else sum(count or 0 for count in computed)
        numbers.sides[side].computed.append(whole)
        numbers.sides[side].generated.append(sum(len(answer.tokens) for answer in made))
        numbers.sides[side].same.append(
            sum(_same(mine, plain, setup) for mine, plain in zip(made, answers[REFERENCE], strict=True))
        )


def _same(answer: Answer, plain: Answer, setup: Setup) -> bool:
    if answer.tokens == plain.tokens:
        return True
    return answer.text is not None and answer.text == setup.text(plain.tokens)
