"""The line in which requests wait for a lane: bounded, fair, and served by what is already computed.

Knows nothing native. Source of the order: longest cached prefix first, as SGLang schedules (arXiv 2312.07104), with a
bound on overtaking so that nobody starves.
"""

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from promptopt.errors import BusyError

WINDOW = 64
"""Waiting requests that are compared; the rest keep their order."""
MAX_OVERTAKEN = 64
"""After this many others went first, a request is served next."""


class Waiting(Protocol):
    """What the line knows of a request."""

    overtaken: int

    @property
    def given_up(self) -> bool:
        """Whether nobody waits for it any more."""
        ...


T = TypeVar("T", bound=Waiting)


class WaitingLine(Generic[T]):
    """A bounded line. Any thread puts, one worker takes; both sleep on the same condition.

    Args:
        limit: requests that may wait; a further one waits for room, or is turned away.
    """

    def __init__(self, limit: int) -> None:
        self.changed = threading.Condition()
        self._limit = limit
        self._items: deque[T] = deque()
        self._closed = False

    def __len__(self) -> int:
        return len(self._items)

    @property
    def closed(self) -> bool:
        """Whether nothing is accepted any more."""
        return self._closed

    def put(self, item: T, *, wait: bool = True, timeout_s: float | None = None) -> bool:
        """Append a request; False if the line is closed.

        Raises:
            BusyError: the line is full and `wait` is False, or no room came up in time.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        with self.changed:
            while not self._closed and len(self._items) >= self._limit:
                left = None if deadline is None else deadline - time.monotonic()
                if not wait or (left is not None and left <= 0):
                    raise BusyError(
                        f"{self._limit} requests are waiting for this model, which is the limit. Try again later, or "
                        "raise max_waiting."
                    )
                self.changed.wait(left)
            if self._closed:
                return False
            self._items.append(item)
            self.changed.notify_all()
            return True

    def take(self, worth: Callable[[T], int | None]) -> T | None:
        """Remove and return the request to serve next; None if there is none that may be served now.

        Args:
            worth: tokens that need not be computed for a request; None if it cannot be served now. A request that was
                overtaken too often is the only one considered: others wait until it can be served.
        """
        with self.changed:
            self._drop_given_up()
            if not self._items:
                return None
            head = self._items[0]
            window = [head] if head.overtaken >= MAX_OVERTAKEN else list(self._items)[:WINDOW]
            priced = [(value, -place) for place, item in enumerate(window) if (value := worth(item)) is not None]
            if not priced:
                return None
            place = -max(priced)[1]
            chosen = self._items[place]
            for earlier in list(self._items)[:place]:
                earlier.overtaken += 1
            del self._items[place]
            self.changed.notify_all()
            return chosen

    def glance(self) -> list[T]:
        """Return the requests that are considered next, in order."""
        with self.changed:
            return list(itertools.islice(self._items, WINDOW))

    def close(self) -> list[T]:
        """Accept nothing any more; return what was waiting."""
        with self.changed:
            self._closed = True
            left, self._items = list(self._items), deque()
            self.changed.notify_all()
            return left

    def _drop_given_up(self) -> None:
        if any(item.given_up for item in self._items):
            self._items = deque(item for item in self._items if not item.given_up)
            self.changed.notify_all()
