"""Seconds of training: counted while training runs, and not while somebody else has the machine."""

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

_WINDOW = 32
"""Batches by which the speed is judged."""


class Stopwatch:
    """Seconds so far, those of earlier starts of the run included. Shows 0 and stands still until it is started."""

    def __init__(self) -> None:
        self._before = 0.0
        self._started: float | None = None
        self._counts: deque[tuple[float, int]] = deque(maxlen=_WINDOW)

    def count(self, tokens: int) -> None:
        """Note that `tokens` were trained on since the last time."""
        self._counts.append((self.seconds, tokens))

    @property
    def tokens_per_s(self) -> float | None:
        """Tokens trained on per second of late; None before the second count."""
        if len(self._counts) < 2 or self._counts[-1][0] <= self._counts[0][0]:
            return None
        tokens = sum(tokens for _, tokens in list(self._counts)[1:])
        return tokens / (self._counts[-1][0] - self._counts[0][0])

    @property
    def seconds(self) -> float:
        """What it shows now."""
        return self._before + (0.0 if self._started is None else time.monotonic() - self._started)

    def set(self, seconds: float) -> None:
        """Show `seconds`, and stand still."""
        self._before, self._started = seconds, None

    def start(self) -> None:
        """Go on counting."""
        self._before, self._started = self.seconds, time.monotonic()

    def stop(self) -> None:
        """Stand still."""
        self.set(self.seconds)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stand still meanwhile; one that stood still before does so afterwards."""
        ran = self._started is not None
        self.stop()
        try:
            yield
        finally:
            if ran:
                self.start()
