"""DSPy's engine interface on a `LocalChat`: canonical requests in, canonical responses and streams out."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from dspy.lm15 import Request, Response

from promptopt.lm.collect import note_call
from promptopt.lm.llama_cpp.grammar import gbnf_of_response_format
from promptopt.lm.llama_cpp.local_chat import ChatRequest, LocalChat
from promptopt.lm.llama_cpp.lora import LoraSet
from promptopt.lm.llama_cpp.pending import PendingCompletion
from promptopt.lm.llama_cpp.sampling import Sampling
from promptopt.lm.lm15_bridge import (
    SUPPORTED_PARAMS,
    as_lm15_errors,
    events_of,
    local_settings,
    messages_of,
    response_of,
)
from promptopt.lm.lm_call import LOCAL_SETTINGS, current_call


class LocalEngine:
    """What a request leaves open comes from `defaults`; LoRA weights are the engine's own."""

    supported_params = SUPPORTED_PARAMS | LOCAL_SETTINGS

    def __init__(self, chat: LocalChat, defaults: Sampling, max_tokens: int, lora: LoraSet = ()) -> None:
        self.chat = chat
        self.defaults = defaults
        self.max_tokens = max_tokens
        self.lora = lora

    def complete(self, request: Request) -> Response:
        """Answer one canonical request; raises dspy.lm15 errors."""
        with as_lm15_errors():
            completion = self.start(request).result()
            note_call(completion)
            return response_of(request, completion)

    def stream(self, request: Request) -> Iterator[Any]:
        """Answer piece by piece; text that may be the beginning of a stop string waits until that is clear."""
        with as_lm15_errors():
            pending = self.start(request, stream=True)
            try:
                yield from events_of(request, pending.stream(), pending.result)
            except GeneratorExit:
                pending.cancel()
                raise
            note_call(pending.result())

    def start(self, request: Request, *, stream: bool = False) -> PendingCompletion:
        """Begin on a request; the answers of one call with `n` above 1 are begun together."""
        config, defaults, local = request.config, self.defaults, local_settings(request)
        grammar = local.get("grammar")
        if grammar is None and config.response_format is not None:
            grammar = gbnf_of_response_format(config.response_format)

        def begin(seed: int) -> PendingCompletion:
            sampling = Sampling(
                temperature=_first(config.temperature, defaults.temperature),
                top_p=_first(config.top_p, defaults.top_p),
                top_k=_first(config.top_k, defaults.top_k),
                min_p=_first(local.get("min_p"), defaults.min_p),
                seed=seed,
                repetition_penalty=_first(local.get("repetition_penalty"), defaults.repetition_penalty),
                frequency_penalty=_first(config.frequency_penalty, defaults.frequency_penalty),
                presence_penalty=_first(config.presence_penalty, defaults.presence_penalty),
            )
            wanted = ChatRequest(
                messages_of(request),
                config.max_tokens or self.max_tokens,
                sampling,
                config.stop,
                grammar,
                config.logprobs,
                self.lora,
            )
            return self.chat.submit(wanted, stream=stream)

        pending: PendingCompletion = current_call().next_answer(_first(config.seed, defaults.seed), begin)
        return pending

    def close(self) -> None:
        """DSPy borrows engines; `LlamaCpp.close` frees the model."""

    def __deepcopy__(self, memo: dict[int, Any]) -> "LocalEngine":
        return self


class AsyncLocalEngine:
    """The same for `acall`: no thread waits for an answer, so that any number of coroutines may."""

    supported_params = SUPPORTED_PARAMS | LOCAL_SETTINGS

    def __init__(self, engine: LocalEngine) -> None:
        self._engine = engine

    async def complete(self, request: Request) -> Response:
        """Answer one canonical request; cancelling the task gives it up."""
        with as_lm15_errors():
            pending = await self._start(request)
            completion = await asyncio.wrap_future(pending.future)
            note_call(completion)
            return response_of(request, completion)

    async def _start(self, request: Request) -> PendingCompletion:
        # On a thread, because it may wait for room in the line or for the cache's disk.
        starting = asyncio.ensure_future(asyncio.to_thread(self._engine.start, request))
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError:
            starting.add_done_callback(_give_up)
            raise

    async def stream(self, request: Request) -> AsyncIterator[Any]:
        """Answer piece by piece, as the synchronous engine does."""
        async for event in _from_thread(lambda: self._engine.stream(request)):
            yield event

    async def aclose(self) -> None:
        """See `LocalEngine.close`."""

    def __deepcopy__(self, memo: dict[int, Any]) -> "AsyncLocalEngine":
        return self


def _give_up(started: "asyncio.Future[PendingCompletion]") -> None:
    if not started.cancelled() and started.exception() is None:
        started.result().cancel()


async def _from_thread(make: Callable[[], Iterator[Any]]) -> AsyncIterator[Any]:
    """Iterate over `make()` on a thread of its own; leaving early closes it there."""
    loop = asyncio.get_running_loop()
    arrived: asyncio.Queue[tuple[str, Any]] = asyncio.Queue()
    stopped = threading.Event()

    def hand_over(kind: str, value: Any) -> None:
        loop.call_soon_threadsafe(arrived.put_nowait, (kind, value))

    def run() -> None:
        iterator = make()
        try:
            for item in iterator:
                if stopped.is_set():
                    break
                hand_over("item", item)
            hand_over("end", None)
        except BaseException as error:
            hand_over("error", error)
        finally:
            close = getattr(iterator, "close", None)
            if close is not None:
                close()

    working = asyncio.ensure_future(asyncio.to_thread(run))
    try:
        while True:
            kind, value = await arrived.get()
            if kind == "end":
                return
            if kind == "error":
                raise value
            yield value
    finally:
        stopped.set()
        await working


def _first(*values: Any) -> Any:
    """Return the first value that is not None."""
    return next(value for value in values if value is not None)
