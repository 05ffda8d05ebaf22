"""An answer that is being computed: wait for it, read it piece by piece, or give it up."""

import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from typing import TypeAlias

from promptopt.errors import LMError, RequestTimeoutError
from promptopt.lm.llama_cpp.requests import Generated
from promptopt.lm.protocol import Completion

Pieces: TypeAlias = queue.SimpleQueue[str | None]


class PendingCompletion:
    """What `LocalChat.submit` returns.

    Args:
        generated: the engine's future; None where `known` is the answer already.
        finish: makes the completion of what was generated; called once.
        known: an answer from the cache.
        pieces: receives the text while it is generated; None where it was not asked for.
    """

    def __init__(
        self,
        generated: "Future[Generated] | None",
        finish: Callable[[Generated], Completion],
        *,
        known: Completion | None = None,
        pieces: Pieces | None = None,
    ) -> None:
        self._generated = generated
        self._finish = finish
        self._done = known
        self._pieces = pieces
        self._lock = threading.Lock()
        if generated is not None and pieces is not None:
            generated.add_done_callback(lambda _: pieces.put(None))

    def result(self, timeout_s: float | None = None) -> Completion:
        """Wait for the answer.

        Raises:
            RequestTimeoutError: it did not come within `timeout_s` seconds; the request is given up.
            LMError: the model broke, was closed, or the request was given up.
        """
        if self._generated is None or self._done is not None:
            assert self._done is not None
            return self._done
        try:
            generated = self._generated.result(timeout_s)
        except TimeoutError as error:
            # A future's own error may be a TimeoutError too.
            if self._generated.done() and not self._generated.cancelled():
                raise
            self.cancel()
            raise RequestTimeoutError(
                f"No answer within {timeout_s:g} s; the request was given up. Allow more time, ask for fewer tokens, "
                "or let fewer requests wait."
            ) from error
        except CancelledError as error:
            raise LMError("The request was given up before it was answered.") from error
        except BaseException:
            # Ctrl-C in the waiting thread: nobody will read the answer.
            self.cancel()
            raise
        return self._completion(generated)

    def _completion(self, generated: Generated) -> Completion:
        with self._lock:
            if self._done is None:
                self._done = self._finish(generated)
            return self._done

    @property
    def future(self) -> "Future[Completion]":
        """A future of the answer, for event loops; cancelling it gives the request up."""
        outer: Future[Completion] = Future()
        if self._generated is None:
            outer.set_result(self.result())
            return outer

        def hand_over(inner: "Future[Generated]") -> None:
            if inner.cancelled():
                outer.cancel()
            if not outer.set_running_or_notify_cancel():
                return
            error = inner.exception()
            if error is not None:
                outer.set_exception(error)
            else:
                outer.set_result(self._completion(inner.result()))

        def give_up(done: "Future[Completion]") -> None:
            if done.cancelled():
                self.cancel()

        outer.add_done_callback(give_up)
        self._generated.add_done_callback(hand_over)
        return outer

    def cancel(self) -> None:
        """Give the request up; its place is free after the current batch. Nothing happens if it has ended."""
        if self._generated is not None:
            self._generated.cancel()

    def __del__(self) -> None:
        # Dropped without having been asked: nobody can read the answer any more. Unfinished initialisation has nothing.
        generated = getattr(self, "_generated", None)
        if generated is not None:
            generated.cancel()

    def stream(self) -> Iterator[str]:
        """Yield the text piece by piece, as it becomes certain; then `result` returns at once.

        Leaving the iterator early gives the request up.
        """
        if self._generated is None or self._pieces is None:
            yield self.result().text
            return
        try:
            while (piece := self._pieces.get()) is not None:
                yield piece
        except GeneratorExit:
            self.cancel()
            raise
        self.result()
