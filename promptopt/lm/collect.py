"""Collects the completions made inside a block, so that one example's tokens and seconds can be counted.

A context variable carries the list, so that threads and tasks that run different examples do not mix.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from promptopt.lm.protocol import Completion

_CALLS: ContextVar[list[Completion] | None] = ContextVar("promptopt_calls", default=None)


@contextmanager
def collect_calls() -> Iterator[list[Completion]]:
    """Yield a list that receives every completion of promptopt's own LMs made inside the block, in order."""
    calls: list[Completion] = []
    token = _CALLS.set(calls)
    try:
        yield calls
    finally:
        _CALLS.reset(token)


def note_call(completion: Completion) -> None:
    """Hand `completion` to the collecting block around it, if there is one. Engines call this once per answer."""
    calls = _CALLS.get()
    if calls is not None:
        calls.append(completion)
