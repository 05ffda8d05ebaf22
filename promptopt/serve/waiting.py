"""Waiting for the model without holding up the event loop.

A request is handed in on a worker thread (it is tokenized there) and its answer comes back through a future, so any
number of requests can wait at once. A request that nobody waits for any more is cancelled.
"""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import Any, TypeVar

from starlette.types import Receive

from promptopt.errors import LMError, RequestTimeoutError
from promptopt.lm.llama_cpp.local_chat import ChatRequest
from promptopt.lm.protocol import Completion
from promptopt.serve.served import PendingAnswer, ServedModel

T = TypeVar("T")


class Deadline:
    """When a request must have its answer.

    Args:
        timeout_s: from now; None = never.
    """

    def __init__(self, timeout_s: float | None) -> None:
        self._timeout_s = timeout_s
        self._at = None if timeout_s is None else asyncio.get_running_loop().time() + timeout_s

    async def keep(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work`; raises RequestTimeoutError where it is not done in time."""
        try:
            async with asyncio.timeout_at(self._at):
                return await work
        except RequestTimeoutError:
            raise
        except TimeoutError as error:
            raise RequestTimeoutError(
                f"The answer was not finished within {self._timeout_s} seconds, and the request was given up. Ask for "
                "fewer tokens (max_tokens), ask again when fewer requests wait, or start the server with a larger "
                "--timeout-s."
            ) from error


async def unless_gone(work: Coroutine[Any, Any, T], receive: Receive) -> T | None:
    """Run `work`, or cancel it and return None when the client hangs up first."""
    task = asyncio.create_task(work)
    gone = asyncio.create_task(_hang_up(receive))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        gone.cancel()
        if not task.done():
            task.cancel()
            await asyncio.wait({task})


async def _hang_up(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def hand_in(
    served: ServedModel, requests: Sequence[ChatRequest], threads: ThreadPoolExecutor, *, stream: bool = False
) -> list[PendingAnswer]:
    """Submit all `requests`, or none of them where one is refused; `stream` makes `pieces_of` possible."""

    def submit_all() -> list[PendingAnswer]:
        pending: list[PendingAnswer] = []
        try:
            for request in requests:
                pending.append(served.submit(request, stream=stream, wait=False))
        except BaseException:
            cancel_all(pending)
            raise
        return pending

    submitted = threads.submit(submit_all)
    try:
        return await _result_of(submitted)
    except asyncio.CancelledError:
        # The thread goes on; nobody wants what it hands in.
        submitted.add_done_callback(_cancel_late)
        raise


def _cancel_late(submitted: "Future[list[PendingAnswer]]") -> None:
    if not submitted.cancelled() and submitted.exception() is None:
        cancel_all(submitted.result())


def cancel_all(pending: Sequence[PendingAnswer]) -> None:
    """Give up those requests that have not ended."""
    for one in pending:
        one.cancel()


async def all_answers(pending: Sequence[PendingAnswer]) -> list[Completion]:
    """Wait for all answers; the first error is everyone's."""
    return await asyncio.gather(*(_result_of(one.future) for one in pending))


async def run_on(threads: ThreadPoolExecutor, work: Callable[[], T]) -> T:
    """Run a blocking call on one of `threads`."""
    return await _result_of(threads.submit(work))


def _result_of(future: "Future[T]") -> "asyncio.Future[T]":
    """Return an awaitable of `future`; unlike `asyncio.wrap_future`'s, cancelling it leaves `future` alone."""
    loop = asyncio.get_running_loop()
    awaited: asyncio.Future[T] = loop.create_future()

    def hand_over() -> None:
        if awaited.done():
            return
        try:
            awaited.set_result(future.result())
        except CancelledError:
            awaited.set_exception(LMError("The request was cancelled while it waited."))
        except BaseException as error:
            awaited.set_exception(error)

    def tell_loop(_: "Future[T]") -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed in the meantime
            loop.call_soon_threadsafe(hand_over)

    future.add_done_callback(tell_loop)
    return awaited


async def pieces_of(
    pending: Sequence[PendingAnswer], deadline: Deadline
) -> AsyncIterator[tuple[int, str | Completion]]:
    """Yield (which one, its next piece of text) as pieces come, and at the end of each answer (which one, the answer).

    Every stream is read on a thread of its own, since reading blocks.
    """
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[tuple[int, str | Completion | BaseException]] = asyncio.Queue()

    def put(index: int, item: str | Completion | BaseException) -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed in the meantime
            loop.call_soon_threadsafe(queue.put_nowait, (index, item))

    for index, one in enumerate(pending):
        threading.Thread(
            target=_read_stream, args=(index, one, put), name=f"promptopt-stream-{index}", daemon=True
        ).start()
    unfinished = len(pending)
    while unfinished:
        index, item = await deadline.keep(queue.get())
        if isinstance(item, BaseException):
            raise item
        unfinished -= isinstance(item, Completion)
        yield index, item


def _read_stream(
    index: int, pending: PendingAnswer, put: Callable[[int, str | Completion | BaseException], None]
) -> None:
    try:
        for piece in pending.stream():
            put(index, piece)
        put(index, pending.result())
    except BaseException as error:
        put(index, error)
