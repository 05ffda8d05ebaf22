"""Something an engine's process is asked for, and the future its answer comes to. Knows no process."""

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from promptopt.errors import LMError


class Call:
    """Something a process is asked for.

    Args:
        kind: a method of `isolated_child.Host`.
        body: its argument, JSON values.
        read: makes the result of what comes back.
        on_text: receives pieces of text, on the reading thread.
        on_left: runs once when the process holds the call no more, before the future is done.
    """

    def __init__(
        self,
        kind: str,
        body: Any,
        read: Callable[[Any], Any],
        *,
        on_text: Callable[[str], None] | None = None,
        on_left: Callable[[], None] | None = None,
    ) -> None:
        self.kind = kind
        self.body = body
        self.on_text = on_text
        self.future: Future[Any] = Future()
        self._read = read
        self._on_left = on_left

    def leave(self) -> None:
        """Give back what the call holds, such as its place among those that wait; safe to call twice."""
        on_left, self._on_left = self._on_left, None
        if on_left is not None:
            on_left()

    def succeed(self, body: Any) -> None:
        """End with the result made of what came back."""
        self.leave()
        try:
            result = self._read(body)
        except Exception as error:
            self.fail(LMError(f"The engine's process sent an answer that cannot be read: {error!r}."))
            return
        if self.future.set_running_or_notify_cancel():
            self.future.set_result(result)

    def fail(self, error: BaseException) -> None:
        """End with an error."""
        self.leave()
        if self.future.set_running_or_notify_cancel():
            self.future.set_exception(error)
