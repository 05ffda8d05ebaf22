"""What is computed next: prompts of waiting requests, then one token of every running one, batch by batch.

Prompts are computed one after the other, so that a common beginning is computed once and copied, and in batches of
their own: that keeps their bits independent of what else runs (see `lanes`), and llama.cpp would compute them
separately anyway. Long ones are computed in pieces, between which running requests get their next tokens.

One thread only: the engine's worker. Sources: iteration-level scheduling as in Orca (OSDI 2022); prompts in pieces
between decode steps as in Sarathi (arXiv 2308.16369).
"""

import time
from typing import Any

import numpy as np

from promptopt.errors import LMError, PromptoptError
from promptopt.lm.llama_cpp.batching import invariance
from promptopt.lm.llama_cpp.batching.batch_rule import ANY, segments
from promptopt.lm.llama_cpp.batching.lanes import MIN_COPY_TOKENS, REUSE_STEP, chunks
from promptopt.lm.llama_cpp.batching.prefix_tree import shared_tokens
from promptopt.lm.llama_cpp.batching.running import Running
from promptopt.lm.llama_cpp.batching.seating import Seating
from promptopt.lm.llama_cpp.batching.thread_rule import ThreadRule
from promptopt.lm.llama_cpp.batching.waiting import WaitingLine
from promptopt.lm.llama_cpp.context import BATCH_TOKENS
from promptopt.lm.llama_cpp.model import NativeModel
from promptopt.lm.llama_cpp.requests import EngineStats, Job, fail
from promptopt.lm.llama_cpp.sampling import SamplerFactory

PROMPT_SLICE_S = 0.25
"""Seconds that prompts may hold up running requests before these get their next token."""
LEAST_CHUNK = 64
"""Tokens of a prompt that are computed at once even on a slow machine."""
GAP_LANES = 4
"""Idle lanes between running ones that are computed along rather than starting another pass over the weights."""


class Batcher:
    """Fills batches from a line of waiting requests.

    Attributes:
        counts: the counters of `EngineStats`, by name.
        seating: the lanes.
    """

    def __init__(self, model: NativeModel, line: WaitingLine[Job], *, prefix_reuse: bool) -> None:
        self._model = model
        self._line = line
        self._prefix_reuse = prefix_reuse
        self.seating = Seating(model, prefix_reuse=prefix_reuse)
        self.counts: dict[str, float] = dict.fromkeys(EngineStats.__dataclass_fields__, 0)
        self._running: dict[int, Running] = {}
        self._prefilling: Running | None = None
        self._samplers = SamplerFactory(model.lib, model.vocabulary)
        invariant = model.options.batch_invariant and not self.seating.whole
        self._rule = invariance.rule(model) if invariant else ANY
        self.rule_name = self._rule.name if invariant else "free"
        self._threads = ThreadRule(model.threads)
        self._chunk = BATCH_TOKENS

    @property
    def running(self) -> int:
        """Requests that have a lane."""
        return len(self._running) + (self._prefilling is not None)

    def round(self) -> None:
        """Compute prompts for a while, then one token of every running request.

        Raises:
            Exception: the model broke; what the lanes hold is unknown until `end_all` and `Seating.remake`.
        """
        self._drop_given_up()
        self._fill()
        self._step()

    def end_all(self, failure: BaseException) -> None:
        """End every request that has a lane with `failure`."""
        ended = [*self._running.values(), *([self._prefilling] if self._prefilling else [])]
        self._running, self._prefilling = {}, None
        for running in ended:
            running.free()
            self._fail(running.job, failure)

    def close(self) -> None:
        """Free everything native except the model."""
        self._samplers.close()
        self.seating.close()

    # Prompts

    def _fill(self) -> None:
        """Compute prompts until all lanes are taken or nobody waits, but not longer than running requests may wait."""
        deadline = time.perf_counter() + PROMPT_SLICE_S
        while not self._line.closed:
            if self._prefilling is None:
                job = self._next_job()
                if job is None:
                    return
                self._prefilling = self._place(job)
            else:
                self._compute_chunk(self._prefilling)
                if self._running and time.perf_counter() > deadline:
                    return

    def _next_job(self) -> Job | None:
        if len(self._running) >= self._model.parallel or not len(self._line):
            return None
        while (job := self._line.take(self._worth)) is not None:
            try:
                self.seating.prepare_for(job)
            except PromptoptError as error:
                self._fail(job, error)
            else:
                return job
        return None

    def _worth(self, job: Job) -> int | None:
        """Return the prompt tokens that are there already; None if the job needs what running requests do not have."""
        if self.seating.fits(job):
            return self.seating.reusable(job) + 1
        # What fits is served before what needs other weights or another context.
        return None if self._running else 0

    def _place(self, job: Job) -> Running | None:
        try:
            sampler = self._samplers.make(job.request.sampling, job.request.grammar)
        except PromptoptError as error:
            self._fail(job, error)
            return None
        running = self.seating.place(job, sampler)
        self.counts["prompt_tokens"] += len(running.prompt)
        self.counts["prompt_tokens_computed"] += len(running.prompt) - running.kept
        if self.seating.whole and self._prefix_reuse:
            running.park_at = self._shared_ahead(job)
        return running

    def _shared_ahead(self, job: Job) -> int:
        """Return how many tokens of a prompt requests that wait now will begin with too; 0 if not worth keeping."""
        same = [other.key for other in self._line.glance() if other.weights == job.weights]
        longest = max((shared_tokens(job.key, key) for key in same), default=0)
        longest = min(longest, len(job.request.prompt) - 1)
        return longest if longest >= MIN_COPY_TOKENS else 0

    def _compute_chunk(self, running: Running) -> None:
        """Compute the next part of a prompt; after the last part choose the first token."""
        if running.given_up:
            self._prefilling = None
            self.counts["requests_failed"] += 1
            self.seating.leave(running)
            return
        prompt, begin = running.prompt, running.computed
        stop = running.park_at if running.park_at > begin else len(prompt)
        # Pieces of any of these sizes have the same bits, so their size may follow the machine's speed.
        _, end = chunks(begin, stop, self._chunk if self._running else BATCH_TOKENS)[0]
        self.seating.context.batch.set_prompt(prompt[begin:end], begin, running.lane, last_logits=end == len(prompt))
        seconds = self._decode(end - begin)
        if end - begin >= LEAST_CHUNK:
            affordable = int(PROMPT_SLICE_S / max(seconds, 1e-6) * (end - begin)) // REUSE_STEP * REUSE_STEP
            self._chunk = max(LEAST_CHUNK, min(BATCH_TOKENS, affordable))
        self.seating.computed(running, end)
        if end == len(prompt):
            self._prefilling = None
            self._running[running.lane] = running
            self._advance([running], self.seating.context.logits(1))

    # Next tokens

    def _step(self) -> None:
        """Compute one token of every running request."""
        if not self._running or self._line.closed:
            return
        if self.seating.whole:
            # Rows that fill holes would change states that nothing can undo; these models need no neighbours either.
            self._decode_rows(np.asarray(sorted(self._running)))
            return
        for low, high in segments(sorted(self._running), self.seating.context.lanes, self._rule, GAP_LANES):
            self._decode_rows(np.arange(low, high))

    def _decode_rows(self, lanes: Any) -> None:
        """Decode one token in each of `lanes` (ascending, an int array); idle ones among them only fill holes."""
        seating, count = self.seating, len(lanes)
        batch, active = seating.context.batch, seating.active[lanes]
        # Behind the last attention only rows whose logits are wanted go on: where bits must not depend on the number of
        # rows, all of them do.
        all_rows = self._rule != ANY
        batch.tokens[:count] = seating.next_tokens[lanes]
        batch.positions[:count] = seating.lengths[lanes]
        batch.sequences[:count] = lanes
        batch.wanted[:count] = 1 if all_rows else active
        batch.set_count(count)
        self._decode(count)
        self.counts["decode_calls"] += 1
        self.counts["decode_rows"] += count
        at = np.flatnonzero(active)
        logits = seating.context.logits(count if all_rows else len(at))
        if all_rows and len(at) < count:
            logits = logits[at]
        seating.drop_fillers(lanes[active == 0])
        seating.lengths[lanes] += active
        self._advance([self._running[lane] for lane in lanes[at].tolist()], logits)

    def _advance(self, rows: list[Running], logits: Any) -> None:
        """Choose the next token of each request from its row of `logits`; end those that are finished."""
        best = logits.argmax(axis=1).tolist()
        for number, running in enumerate(rows):
            row = logits[number]
            token = best[number] if running.sampler is None else running.sampler.sample(row)
            if not np.isfinite(row[token]):
                raise LMError(
                    f"{self._model.path.name} computes numbers that are not finite. The file is damaged, or its "
                    "weights overflow in this precision: use another quantization or f32."
                )
            reason = running.push(token, row)
            if reason is None:
                self.seating.next_tokens[running.lane] = token
                continue
            del self._running[running.lane]
            result = running.result(reason)
            self.counts["completion_tokens"] += len(result.tokens)
            self.seating.leave(running)
            if running.job.future.set_running_or_notify_cancel():
                self.counts["requests_done"] += 1
                running.job.future.set_result(result)

    def _drop_given_up(self) -> None:
        for lane, running in list(self._running.items()):
            if running.given_up:
                del self._running[lane]
                self.counts["requests_failed"] += 1
                self.seating.leave(running)

    def _decode(self, rows: int) -> float:
        started = time.perf_counter()
        self.seating.context.decode()
        seconds = time.perf_counter() - started
        self.counts["decode_seconds"] += seconds
        if self._model.options.n_threads is None and self._threads.observe(rows, seconds):
            self.seating.context.set_threads(self._threads.threads)
        return seconds

    def _fail(self, job: Job, error: BaseException) -> None:
        self.counts["requests_failed"] += 1
        fail(job, error)
