"""One request while it generates: its tokens, text, stop strings, log probabilities."""

import time
from typing import Any

import numpy as np

from promptopt.lm.llama_cpp import native
from promptopt.lm.llama_cpp.requests import Generated, Job
from promptopt.lm.llama_cpp.sampling import Sampler
from promptopt.lm.llama_cpp.text_stream import TextStream
from promptopt.lm.llama_cpp.vocabulary import Vocabulary
from promptopt.lm.protocol import FinishReason, TokenLogprob


class Running:
    """A request that has a lane.

    Attributes:
        lane: index of its lane.
        computed: prompt tokens that are in the lane.
        kept: prompt tokens that were there before.
        park_at: prompt tokens after which a copy of the state is kept for others; 0 = none.
        sampler: None where the argmax is the choice.
    """

    def __init__(self, job: Job, lane: int, kept: int, sampler: Sampler | None, vocabulary: Vocabulary) -> None:
        self.job = job
        self.lane = lane
        self.kept = self.computed = kept
        self.park_at = 0
        self.sampler = sampler
        self.prompt: Any = np.asarray(job.request.prompt, dtype=np.int32)
        self.tokens: list[int] = []
        self._vocabulary = vocabulary
        self._stream = TextStream(job.request.stop)
        self._logprobs: list[TokenLogprob] | None = None if job.request.logprobs is None else []
        self._first_token_at = 0.0

    @property
    def given_up(self) -> bool:
        """Whether nobody waits for it any more."""
        return self.job.given_up

    def push(self, token: int, logits: native.Logits) -> FinishReason | None:
        """Take the next token, chosen from `logits`; return why the request is finished, or None if it is not."""
        if not self._first_token_at:
            self._first_token_at = time.perf_counter()
        if self._vocabulary.ends_generation(token):
            return "stop"
        self.tokens.append(token)
        if self._logprobs is not None:
            self._logprobs.append(token_logprob(self._vocabulary, logits, token, self.job.request.logprobs or 0))
        if self._stream.push(self._vocabulary.token_bytes(token)):
            return "stop"
        if self.job.on_text is not None and (piece := self._stream.release()):
            self.job.on_text(piece)
        return "length" if len(self.tokens) >= self.job.request.max_tokens else None

    def result(self, reason: FinishReason) -> Generated:
        """Return what came out; hands over the text that was held back for stop strings."""
        if self.job.on_text is not None and (piece := self._stream.release(ended=True)):
            self.job.on_text(piece)
        now = time.perf_counter()
        return Generated(
            tokens=tuple(self.tokens),
            text=self._stream.text,
            finish_reason=reason,
            prompt_tokens_computed=len(self.prompt) - self.kept,
            latency_s=now - self.job.submitted_at,
            first_token_s=self._first_token_at - self.job.submitted_at,
            logprobs=None if self._logprobs is None else tuple(self._logprobs),
        )

    def free(self) -> None:
        """Give native memory back."""
        if self.sampler is not None:
            self.sampler.free()
            self.sampler = None


def token_logprob(vocabulary: Vocabulary, logits: native.Logits, token: int, top: int) -> TokenLogprob:
    """Return the log probability of `token` among `logits` (vocabulary,), and of the `top` likeliest tokens."""
    values = logits.astype(np.float64)
    values -= values.max()
    values -= np.log(np.exp(values).sum())
    count = min(top, len(values))
    best = np.argpartition(-values, count - 1)[:count] if count else np.empty(0, dtype=np.int64)
    best = best[np.lexsort((best, -values[best]))]

    def entry(number: int, more: tuple[TokenLogprob, ...] = ()) -> TokenLogprob:
        text, data = vocabulary.token_text(number), vocabulary.token_bytes(number)
        return TokenLogprob(number, text, data, float(values[number]), more)

    return entry(token, tuple(entry(int(number)) for number in best))
