"""One call of a local LM through DSPy: what DSPy strips before an engine sees the request.

`n`, `rollout_id` and settings that no provider's API has (grammar, min_p, repetition_penalty) travel in a context
variable, so that threads and tasks do not mix.
"""

import hashlib
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

LOCAL_SETTINGS = frozenset({"grammar", "min_p", "repetition_penalty"})
"""Keyword arguments of a call that only promptopt's own LMs know."""


class LmCall:
    """One LM call that is asked for `n` answers.

    Attributes:
        settings: those of `LOCAL_SETTINGS` that were given.
    """

    def __init__(self, rollout_id: int | None, n: int, settings: dict[str, Any]) -> None:
        self.settings = settings
        self._rollout_id = rollout_id
        self._left = max(1, n)
        self._number = 0
        self._started: deque[Any] = deque()

    def next_answer(self, seed: int, start: Callable[[int], Any]) -> Any:
        """Return the next of the n answers; the first time, all of them are started, to be computed together.

        Args:
            start: begins one answer with a seed and returns what stands for it.
        """
        if not self._started:
            seeds = [self._drawn_seed(seed) for _ in range(self._left)]
            self._left = 1
            self._started.extend(start(drawn) for drawn in seeds)
        return self._started.popleft()

    def _drawn_seed(self, seed: int) -> int:
        """Return the seed of the next answer.

        The first answer without `rollout_id` uses `seed` itself; every other (rollout_id, number) has a seed of its
        own, so that `n=5` gives five draws and a new `rollout_id` a fresh one, all reproducible.
        """
        number, self._number = self._number, self._number + 1
        if self._rollout_id is None and number == 0:
            return seed
        return derived_seed(seed, self._rollout_id, number)

    def give_up(self) -> None:
        """Cancel answers that were started and not fetched."""
        while self._started:
            self._started.popleft().cancel()


_current: ContextVar[LmCall | None] = ContextVar("promptopt_lm_call", default=None)


@contextmanager
def lm_call(rollout_id: int | None, n: int | None, settings: dict[str, Any]) -> Iterator[None]:
    """Make everything inside the block one LM call."""
    call = LmCall(rollout_id, n if isinstance(n, int) else 1, settings)
    token = _current.set(call)
    try:
        yield
    finally:
        _current.reset(token)
        call.give_up()


def current_call() -> LmCall:
    """Return the LM call around this code; outside of one, a call for one answer."""
    return _current.get() or LmCall(None, 1, {})


def derived_seed(seed: int, rollout_id: int | None, number: int) -> int:
    """Return the seed of draw `number` of a rollout, reproducibly different from all others."""
    digest = hashlib.sha256(f"{seed}:{rollout_id}:{number}".encode()).digest()
    return int.from_bytes(digest[:4], "big")


def split_settings(kwargs: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the local settings of a call's keyword arguments, and the rest."""
    local = {key: value for key, value in kwargs.items() if key in LOCAL_SETTINGS and value is not None}
    return local, {key: value for key, value in kwargs.items() if key not in LOCAL_SETTINGS}
