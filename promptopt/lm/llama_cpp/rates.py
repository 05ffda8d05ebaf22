"""Measures on a loaded model the rates that a `CostModel` prices prompts with: a few short calls, some seconds.

Three kinds of calls, each timed by the clock on the wall: a long prompt alone (seconds per prompt token); as many
requests as run at once, which share that prompt and add a little of their own (seconds per request: copying what is
shared, and what a short batch costs more than a long one); the same with answers (seconds per generated token).
"""

import random
import statistics
import time
from collections.abc import Sequence

from promptopt.errors import ContextLengthError
from promptopt.lm.cost import CostModel
from promptopt.lm.llama_cpp.batching.lanes import REUSE_STEP
from promptopt.lm.llama_cpp.local_chat import LocalChat
from promptopt.lm.llama_cpp.requests import GenerationRequest
from promptopt.lm.llama_cpp.sampling import Sampling

SHARED_TOKENS = 512
OWN_TOKENS = 60
ANSWER_TOKENS = 17
ROUNDS = 3
_SHORTEST = 4 * (OWN_TOKENS + ANSWER_TOKENS)


def measure_rates(
    chat: LocalChat, *, running: int | None = None, shared_tokens: int = SHARED_TOKENS, rounds: int = ROUNDS
) -> CostModel:
    """Return what tokens cost on `chat`'s model and this machine now. Evicts prompts that are resident.

    Args:
        running: requests that run at once in what is to be priced; None = `chat.parallel`. A generated token is cheaper
            the more of them are computed together.
        shared_tokens: length of the long prompt; less where the context is smaller. Later tokens look back on more.
        rounds: repetitions; the median counts.

    Raises:
        ContextLengthError: the context is too small to measure anything.
        LMError: the model broke.
    """
    if chat.n_ctx < _SHORTEST:
        raise ContextLengthError(
            f"n_ctx is {chat.n_ctx}; measuring rates takes at least {_SHORTEST}. Load the model with a larger one."
        )
    shared = min(shared_tokens, chat.n_ctx - OWN_TOKENS - ANSWER_TOKENS)
    calls = _Calls(chat, shared - shared % REUSE_STEP, running or chat.parallel)
    calls.warm_up()
    measured = [calls.rates() for _ in range(rounds)]
    prompt_s, generated_s, request_s = (statistics.median(column) for column in zip(*measured, strict=True))
    return CostModel(prompt_s, generated_s, request_s)


class _Calls:
    """The calls of one measurement; every prompt is new."""

    def __init__(self, chat: LocalChat, shared: int, running: int) -> None:
        self._chat = chat
        self._shared = shared
        self._running = running
        self._random = random.Random(0)
        self._sampling = Sampling()

    def warm_up(self) -> None:
        """Make the context and touch the weights; find out whether greedy answers to random tokens end early."""
        shared = self._tokens(self._shared)
        done = self._run([shared + self._tokens(OWN_TOKENS) for _ in range(self._running)], ANSWER_TOKENS)[1]
        if done < self._running * ANSWER_TOKENS:
            # Nearly uniform draws hardly ever hit a token that ends the turn.
            self._sampling = Sampling(temperature=100.0)

    def rates(self) -> tuple[float, float, float]:
        """Return seconds per prompt token, per generated token and per request."""
        count, shared = self._running, self._tokens(self._shared)
        alone_s, _ = self._run([shared], 1)
        short_s, short_out = self._run([shared + self._tokens(OWN_TOKENS) for _ in range(count)], 1)
        long_s, long_out = self._run([shared + self._tokens(OWN_TOKENS) for _ in range(count)], ANSWER_TOKENS)
        generated_s = max(0.0, long_s - short_s) / max(1, long_out - short_out)
        # alone_s = shared tokens + 1 request; short_s = count x (own tokens + 1 request).
        prompt_s = max(0.0, alone_s - short_s / count) / max(1, self._shared - OWN_TOKENS)
        return prompt_s, generated_s, max(0.0, short_s / count - OWN_TOKENS * prompt_s)

    def _tokens(self, count: int) -> list[int]:
        return self._random.choices(range(self._chat.model.vocabulary.size), k=count)

    def _run(self, prompts: Sequence[list[int]], max_tokens: int) -> tuple[float, int]:
        """Return the seconds until all prompts are answered, and the generated tokens."""
        started = time.perf_counter()
        futures = [
            self._chat.engine.submit(GenerationRequest(prompt, max_tokens, self._sampling)) for prompt in prompts
        ]
        generated = sum(len(future.result().tokens) for future in futures)
        return time.perf_counter() - started, generated
