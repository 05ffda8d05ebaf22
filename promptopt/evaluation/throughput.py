"""How fast an evaluation goes: calls and tokens per second, what caches saved, time left. Arithmetic on records."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from promptopt.records import ExampleRecord

WINDOW_S = 30.0
"""Rates are over the last this many seconds: a resumed or cached beginning must not promise an early end."""
LEAST_RECORDS = 8
"""... but over at least this many records, however long they took."""


@dataclass(frozen=True)
class Speed:
    """One moment of an evaluation.

    Attributes:
        calls_per_s: LM calls answered, by the model or the response cache.
        tokens_per_s: tokens generated.
        cached_share: calls that the response cache answered, of all calls so far; None before the first.
        computed_share: prompt tokens that were computed, of all prompt tokens so far; None before the first.
        left_s: seconds until the remaining examples are done; None where nothing can be said.
    """

    calls_per_s: float = 0.0
    tokens_per_s: float = 0.0
    cached_share: float | None = None
    computed_share: float | None = None
    left_s: float | None = None

    @property
    def text(self) -> str:
        """For people, the most wanted first, without what is not known; empty before the first record."""
        parts = [] if self.left_s is None else [f"{duration(self.left_s)} left"]
        if self.calls_per_s > 0:
            parts += [f"{_short(self.calls_per_s)} calls/s", f"{_short(self.tokens_per_s)} tokens/s"]
        if self.cached_share is not None:
            parts.append(f"{self.cached_share:.0%} cached")
        if self.computed_share is not None:
            parts.append(f"{self.computed_share:.0%} of prompts computed")
        return ", ".join(parts)


@dataclass(frozen=True)
class _Totals:
    at: float
    records: int = 0
    calls: int = 0
    cached_calls: int = 0
    generated: int = 0
    prompt_tokens: int = 0
    prompt_tokens_computed: int = 0


class Throughput:
    """Counts records as they are computed; those read from a file are not its business.

    Args:
        clock: seconds; only differences matter.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._window = deque([_Totals(clock())])

    @property
    def records(self) -> int:
        """How many records were counted."""
        return self._window[-1].records

    def add(self, record: ExampleRecord) -> None:
        """Count one computed record, now."""
        last = self._window[-1]
        now = self._clock()
        self._window.append(
            _Totals(
                at=now,
                records=last.records + 1,
                calls=last.calls + record.calls,
                cached_calls=last.cached_calls + record.cached_calls,
                generated=last.generated + record.completion_tokens_computed,
                prompt_tokens=last.prompt_tokens + record.prompt_tokens,
                prompt_tokens_computed=last.prompt_tokens_computed + record.prompt_tokens_computed,
            )
        )
        while len(self._window) > LEAST_RECORDS + 1 and self._window[1].at <= now - WINDOW_S:
            self._window.popleft()

    def speed(self, remaining: float) -> Speed:
        """Return how fast it goes, and when `remaining` further examples will be done at this pace."""
        first, last = self._window[0], self._window[-1]
        seconds = self._clock() - first.at
        if last.records == 0 or seconds <= 0:
            return Speed()
        return Speed(
            calls_per_s=(last.calls - first.calls) / seconds,
            tokens_per_s=(last.generated - first.generated) / seconds,
            cached_share=last.cached_calls / last.calls if last.calls else None,
            computed_share=last.prompt_tokens_computed / last.prompt_tokens if last.prompt_tokens else None,
            left_s=remaining * seconds / (last.records - first.records),
        )


def duration(seconds: float) -> str:
    """Return seconds as people say them: "40 s", "12 min", "3 h 5 min"."""
    whole = round(seconds)
    if whole < 100:
        return f"{whole} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}"
