"""How many CPU threads to decode with while other work holds the cores. Pure; knows no model.

llama.cpp's threads meet at a barrier many times per token and spin there. When one of them has lost its core to another
process, all wait for it: a call took 4 s instead of 60 ms on two busy cores. One thread less is far better then.
"""

import time
from collections.abc import Callable

SLOW_FACTOR = 4.0
SLOW_SECONDS = 0.02
SLOW_IN_A_ROW = 3
RETRY_S = 20.0


class ThreadRule:
    """Watches how long batches take, and says when to use fewer threads or to try all again.

    Args:
        most: threads to use on a machine with nothing else to do.
        clock: seconds, for tests.
    """

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._clock = clock
        self._best: dict[int, float] = {}
        self._slow = 0
        self._lowered_at = 0.0
        self.threads = most

    def observe(self, rows: int, seconds: float) -> bool:
        """Take the time of one batch of `rows`; True if `threads` has changed."""
        best = min(self._best.get(rows, seconds), seconds)
        self._best[rows] = best
        if seconds > best * SLOW_FACTOR and seconds - best > SLOW_SECONDS:
            self._slow += 1
        else:
            self._slow = 0
        if self._slow >= SLOW_IN_A_ROW and self.threads > 1:
            self._slow, self._lowered_at = 0, self._clock()
            self.threads -= 1
            return True
        if self.threads < self._most and self._clock() - self._lowered_at > RETRY_S:
            self.threads = self._most
            return True
        return False
