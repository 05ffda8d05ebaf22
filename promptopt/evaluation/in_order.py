"""Several threads work on items; the results come out in the order of the items. Knows no DSPy, no LM and no rows."""

import threading
from bisect import bisect_right
from collections.abc import Callable, Generator, Sequence
from contextvars import Context, copy_context
from typing import Generic, TypeVar

from promptopt.errors import ConfigError

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")

AHEAD = 4
"""Finished results may wait for a slow earlier one: at most this many times `parallel` items are begun beyond it."""


def checked_parallel(parallel: int) -> int:
    """Return `parallel`.

    Raises:
        ConfigError: it is not a positive number.
    """
    if parallel < 1:
        raise ConfigError(f"parallel is {parallel}; allowed are whole numbers from 1, which runs one row at a time.")
    return parallel


def in_order(
    work: Callable[[ItemT], ResultT], items: Sequence[ItemT], parallel: int, stops: Sequence[int] | None = None
) -> Generator[ResultT]:
    """Yield `work(item)` for every item, in order, while up to `parallel` of them run.

    Items are begun in order, each in its own copy of the context of whoever asks for the first result. What `work`
    raises is raised here, in the consumer's thread, when its turn comes; no item is begun once that is known. Closing
    the generator begins no further item and waits for none: the threads are daemons, and what still runs is dropped.
    With `parallel` 1 there are no threads.

    Args:
        stops: ascending counts of results after which the consumer may close the generator; None = after any, empty =
            never. At most `parallel` items beyond the place where it stops are begun in vain.

    Raises:
        ConfigError: `parallel` is not a positive number.
    """
    threads = min(checked_parallel(parallel), len(items))
    if threads <= 1:
        for item in items:
            yield work(item)
        return
    line = _Line(work, items, copy_context())
    try:
        for number in range(threads):
            threading.Thread(target=line.serve, name=f"promptopt-rows-{number}", daemon=True).start()
        for index in range(len(items)):
            yield line.take(index, _limit(index, parallel, stops, len(items)))
    finally:
        line.close()


def _limit(index: int, parallel: int, stops: Sequence[int] | None, n_items: int) -> int:
    """Return how many items may have been begun while the consumer waits for, or works on, result `index`."""
    if stops is None:
        certain = index + 1
    else:
        next_stop = bisect_right(stops, index)
        certain = stops[next_stop] if next_stop < len(stops) else n_items
    # A consumer that goes on beyond its own last word (stops out of order) still gets its next result.
    return min(max(certain, index + 1) + parallel, index + 1 + AHEAD * parallel, n_items)


class _Line(Generic[ItemT, ResultT]):
    """The items in their order, and the results that are not taken yet. The consumer and the threads share it."""

    def __init__(self, work: Callable[[ItemT], ResultT], items: Sequence[ItemT], context: Context) -> None:
        self._work = work
        self._items = items
        self._context = context
        lock = threading.Lock()
        # Two conditions on one lock: a result wakes only the consumer, room for a further item only idle threads.
        self._ready = threading.Condition(lock)
        self._room = threading.Condition(lock)
        self._results: dict[int, ResultT] = {}
        self._errors: dict[int, BaseException] = {}
        self._begun = 0
        self._limit = 0
        self._awaited = 0
        self._over = False

    def take(self, index: int, limit: int) -> ResultT:
        """Return result `index`, waiting for it; up to `limit` items may have been begun from now on."""
        with self._ready:
            if limit > self._limit:
                self._room.notify(limit - self._limit)
                self._limit = limit
            self._awaited = index
            while index not in self._results and index not in self._errors:
                self._ready.wait()
            if index in self._errors:
                raise self._errors.pop(index)
            return self._results.pop(index)

    def close(self) -> None:
        """Let no thread begin a further item."""
        with self._room:
            self._over = True
            self._results.clear()
            self._room.notify_all()

    def serve(self) -> None:
        """Work on items until there are no more to begin: what each thread does."""
        while (index := self._begin()) is not None:
            self._work_on(index)

    def _begin(self) -> int | None:
        with self._room:
            while not self._over and self._begun < len(self._items):
                if self._begun < self._limit:
                    self._begun += 1
                    return self._begun - 1
                self._room.wait()
            return None

    def _work_on(self, index: int) -> None:
        try:
            result = self._context.copy().run(self._work, self._items[index])
        except BaseException as error:
            with self._ready:
                self._over = True
                self._errors[index] = error
                self._ready.notify()
            return
        with self._ready:
            self._results[index] = result
            if index == self._awaited:
                self._ready.notify()
