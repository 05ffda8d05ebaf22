"""Ways to run a workload: one call after the other, from many threads, or in waves of a fixed size."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from engine_bench.workloads import Call, Workload


@dataclass(frozen=True, slots=True)
class Answer:
    """What came out.

    Attributes:
        prompt: token ids that were asked.
        tokens: token ids of the answer, without the one that ends it.
        computed: prompt tokens that were computed; None = the side does not say.
        text: the answer of a side that speaks text only; `tokens` are then read from it.
    """

    prompt: tuple[int, ...]
    tokens: tuple[int, ...]
    computed: int | None = None
    text: str | None = None


Ask = Callable[[tuple[int, ...], int], Answer]
"""Answers (prompt, max_tokens)."""


def prompt_of(call: Call, answers: Sequence[Answer | None]) -> tuple[int, ...]:
    """Return a call's prompt, with the answer it takes from an earlier one."""
    if call.takes is None:
        return call.head + call.tail
    earlier = answers[call.takes]
    assert earlier is not None
    return call.head + earlier.tokens + call.tail


class _Ready:
    """Hands out calls in their order, each once those it waits for have ended. Thread-safe."""

    def __init__(self, workload: Workload) -> None:
        self.calls = workload.calls
        self.answers: list[Answer | None] = [None] * len(workload.calls)
        self._left = list(range(len(workload.calls)))
        self._changed = threading.Condition()
        self._failed = False

    def take(self) -> tuple[int, tuple[int, ...]] | None:
        """Return the next call's number and prompt, waiting until there is one; None at the end."""
        with self._changed:
            while self._left and not self._failed:
                for place, number in enumerate(self._left):
                    call = self.calls[number]
                    if all(self.answers[earlier] is not None for earlier in call.after):
                        del self._left[place]
                        return number, prompt_of(call, self.answers)
                self._changed.wait()
            return None

    def take_many(self, most: int) -> list[tuple[int, tuple[int, ...]]]:
        """Return up to `most` calls that can begin now."""
        ready = [n for n in self._left if all(self.answers[e] is not None for e in self.calls[n].after)][:most]
        self._left = [number for number in self._left if number not in ready]
        return [(number, prompt_of(self.calls[number], self.answers)) for number in ready]

    def put(self, number: int, answer: Answer) -> None:
        with self._changed:
            self.answers[number] = answer
            self._changed.notify_all()

    def fail(self) -> None:
        with self._changed:
            self._failed = True
            self._changed.notify_all()

    def result(self) -> list[Answer]:
        return [answer for answer in self.answers if answer is not None]


def one_by_one(workload: Workload, ask: Ask) -> list[Answer]:
    """Ask in natural order of arrival, one call at a time."""
    answers: list[Answer] = []
    for call in workload.calls:
        answers.append(ask(prompt_of(call, answers), call.max_tokens))
    return answers


def from_threads(workload: Workload, asks: Sequence[Ask]) -> list[Answer]:
    """Ask from one thread per entry of `asks`: each takes the next call in order of arrival when its last has ended."""
    ready = _Ready(workload)
    errors: list[BaseException] = []

    def client(ask: Ask) -> None:
        try:
            while (taken := ready.take()) is not None:
                number, prompt = taken
                ready.put(number, ask(prompt, workload.calls[number].max_tokens))
        except BaseException as error:
            errors.append(error)
            ready.fail()

    threads = [threading.Thread(target=client, args=(ask,)) for ask in asks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return ready.result()


def in_waves(
    workload: Workload, ask_many: Callable[[list[tuple[int, ...]], int], list[Answer]], size: int
) -> list[Answer]:
    """Ask up to `size` calls together, in order of arrival; the next wave begins when all of them have ended."""
    ready = _Ready(workload)
    while wave := ready.take_many(size):
        longest = max(workload.calls[number].max_tokens for number, _ in wave)
        for (number, _), answer in zip(wave, ask_many([prompt for _, prompt in wave], longest), strict=True):
            ready.put(number, answer)
    return ready.result()
