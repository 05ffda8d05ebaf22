"""Server-sent events: an answer that goes out piece by piece, as OpenAI's clients read it."""

from collections.abc import AsyncIterator, Sequence

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from promptopt.lm.protocol import Completion
from promptopt.serve.answers import AnswerShape, Json
from promptopt.serve.failures import described, json_bytes, log_failure
from promptopt.serve.served import PendingAnswer
from promptopt.serve.waiting import Deadline, cancel_all, pieces_of, unless_gone

DONE = b"data: [DONE]\n\n"


class EventStream(Response):
    """Sends the answers of `pending` as they are written, and gives them up when the client hangs up."""

    media_type = "text/event-stream"

    def __init__(
        self, pending: Sequence[PendingAnswer], shape: AnswerShape, deadline: Deadline, *, include_usage: bool
    ) -> None:
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._pending = pending
        self._shape = shape
        self._deadline = deadline
        self._include_usage = include_usage

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run as an ASGI application."""
        try:
            await unless_gone(self._send_all(send), receive)
        finally:
            cancel_all(self._pending)

    async def _send_all(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        try:
            async for chunk in self._chunks():
                await self._send(send, b"data: " + json_bytes(chunk) + b"\n\n")
        except Exception as error:
            # The status line is out, so the error travels in the stream, where OpenAI's clients look for it.
            status, content = described(error)
            log_failure(error, status)
            await self._send(send, b"data: " + json_bytes(content) + b"\n\n")
        else:
            await self._send(send, DONE)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send(self, send: Send, data: bytes) -> None:
        await send({"type": "http.response.body", "body": data, "more_body": True})

    async def _chunks(self) -> AsyncIterator[Json]:
        for index in range(len(self._pending)):
            for chunk in self._shape.opening(index):
                yield chunk
        finished: dict[int, Completion] = {}
        async for index, item in pieces_of(self._pending, self._deadline):
            if isinstance(item, Completion):
                finished[index] = item
                yield self._shape.closing(index, item)
            elif item:
                yield self._shape.piece(index, item)
        if self._include_usage:
            yield self._shape.final([finished[index] for index in range(len(self._pending))])
