"""The thread that owns a model's context: prompts and next tokens of all requests, batch by batch.

Each round it fills free lanes with waiting requests (prompt by prompt, so that a common beginning is computed once and
copied), then decodes one token of every running request in one pass. Prompts are computed in batches of their own: that
keeps their bits independent of what else runs (see `lanes`), and llama.cpp would compute them separately anyway.

Sources: iteration-level scheduling as in Orca (OSDI 2022); chunked prompts between decode steps as in Sarathi (2023).
"""

import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import numpy as np

from promptopt.errors import LMError, ModelError, PromptoptError
from promptopt.lm.llama_cpp import invariance
from promptopt.lm.llama_cpp.batch_rule import ANY, segments
from promptopt.lm.llama_cpp.context import BATCH_TOKENS, LaneContext
from promptopt.lm.llama_cpp.lanes import MIN_COPY_TOKENS, LanePool, chunks
from promptopt.lm.llama_cpp.lora import LoraSet, LoraShelf
from promptopt.lm.llama_cpp.model import CapacityWarning, NativeModel
from promptopt.lm.llama_cpp.prefix_tree import TOKEN_BYTES, shared_tokens
from promptopt.lm.llama_cpp.requests import EngineStats, Job
from promptopt.lm.llama_cpp.running import Running
from promptopt.lm.llama_cpp.sampling import SamplerFactory
from promptopt.lm.llama_cpp.thread_rule import ThreadRule
from promptopt.lm.llama_cpp.waiting import WaitingLine

PROMPT_SLICE_S = 0.25
"""Seconds that prompts may hold up running requests before these get their next token."""
GAP_LANES = 4
"""Idle lanes between running ones that are computed along rather than starting another pass over the weights."""


class Worker:
    """The thread and everything only it touches. Holds no reference to `Engine`, so that an engine can be collected."""

    def __init__(self, model: NativeModel, *, prefix_reuse: bool) -> None:
        self._model = model
        self._prefix_reuse = prefix_reuse
        self._whole = not model.can_reuse_prefixes
        self.line: WaitingLine[Job] = WaitingLine(model.options.max_waiting)
        self.closing: list[Callable[[], None]] = []
        self._calls: list[tuple[Callable[[], Any], Future[Any]]] = []
        self._thread: threading.Thread | None = None
        self._start_lock = threading.Lock()
        self._running: dict[int, Running] = {}
        self._prefilling: Running | None = None
        self._weights = ""
        self._counts: dict[str, float] = dict.fromkeys(EngineStats.__dataclass_fields__, 0)
        self._samplers = SamplerFactory(model.lib, model.vocabulary)
        self._lora = LoraShelf(model.lib, model.raw, model.path.name)
        self._rule = invariance.rule(model) if model.options.batch_invariant and not self._whole else ANY
        self._threads = ThreadRule(model.threads)
        self._set_context(model.make_context(0))

    @property
    def rule_name(self) -> str:
        """Name of the batch rule that answers are computed under."""
        return self._rule.name if self._model.options.batch_invariant and not self._whole else "free"

    def _set_context(self, context: LaneContext) -> None:
        self._context = context
        self._pool = LanePool(context.lanes, reuse=self._prefix_reuse, whole=self._whole)
        self._lengths = np.zeros(context.lanes, dtype=np.int32)
        self._next = np.zeros(context.lanes, dtype=np.int32)
        self._active = np.zeros(context.lanes, dtype=np.int8)
        self._weights = ""

    # Called from any thread

    def submit(self, job: Job, *, wait: bool = True) -> None:
        """Put a job into the line; raises LMError if the model was closed, BusyError if there is no room."""
        with self._start_lock:
            if self._thread is None and not self.line.closed:
                self._thread = threading.Thread(target=self._serve, name="promptopt-llama-cpp", daemon=True)
                self._thread.start()
        if not self.line.put(job, wait=wait):
            raise self._closed_error()

    def call(self, action: Callable[[], Any]) -> Any:
        """Run `action` on the worker thread between two batches and return its result."""
        future: Future[Any] = Future()
        with self._start_lock:
            if self._thread is None and not self.line.closed:
                self._thread = threading.Thread(target=self._serve, name="promptopt-llama-cpp", daemon=True)
                self._thread.start()
        with self.line.changed:
            if self.line.closed:
                raise self._closed_error()
            self._calls.append((action, future))
            self.line.changed.notify_all()
        return future.result()

    def shut_down(self) -> None:
        """Stop the thread and free the model; safe to call twice."""
        with self._start_lock:
            left = self.line.close()
            thread = self._thread
        for job in left:
            _fail(job, self._closed_error())
        if thread is None:
            self._free()
        elif thread is not threading.current_thread():
            thread.join()

    def stats(self) -> EngineStats:
        """Return the counters."""
        counts = dict(self._counts)
        counts["requests_running"] = len(self._running) + (self._prefilling is not None)
        counts["requests_waiting"] = len(self.line)
        counts["resident_tokens"] = self._pool.unique_tokens
        whole = {name: int(value) for name, value in counts.items() if not name.endswith("_seconds")}
        return EngineStats(**{**counts, **whole})  # type: ignore[arg-type]

    def _closed_error(self) -> LMError:
        return LMError(f"The model {self._model.path.name} was closed; load it again.")

    # The thread

    def _serve(self) -> None:
        try:
            while self._wait_for_work():
                started = time.perf_counter()
                self._run_calls()
                self._round()
                self._counts["busy_seconds"] += time.perf_counter() - started
        finally:
            for job in self.line.close():
                _fail(job, self._closed_error())
            self._end_all(self._closed_error())
            # Freed on the thread that used it, so never in the middle of a decode.
            self._free()

    def _wait_for_work(self) -> bool:
        with self.line.changed:
            while not (self.line.closed or len(self.line) or self._running or self._prefilling or self._calls):
                self.line.changed.wait()
            return not self.line.closed

    def _run_calls(self) -> None:
        with self.line.changed:
            calls, self._calls = self._calls, []
        for action, future in calls:
            try:
                future.set_result(action())
            except BaseException as error:
                future.set_exception(error)

    def _round(self) -> None:
        try:
            self._drop_given_up()
            self._fill()
            self._step()
        except BaseException as error:
            failure = error
            if not isinstance(error, PromptoptError):
                failure = LMError(f"{self._model.path.name} broke while answering: {type(error).__name__}: {error}.")
                failure.__cause__ = error
            # After a failure nobody knows what the lanes hold.
            self._end_all(failure)
            self._remake_context(self._context.lane_tokens)

    def _end_all(self, failure: BaseException) -> None:
        ended = [*self._running.values(), *([self._prefilling] if self._prefilling else [])]
        self._running, self._prefilling = {}, None
        for running in ended:
            self._counts["requests_failed"] += 1
            running.free()
            _fail(running.job, failure)
        if self.line.closed:
            with self.line.changed:
                calls, self._calls = self._calls, []
            for _, future in calls:
                future.set_exception(failure)

    def free_lora(self, lora: LoraSet) -> None:
        """Unload LoRA weights; on the worker's thread only.

        Raises:
            LMError: a request that is running uses them.
        """
        ended = {item.fingerprint for item in lora}
        if self._running and any(fingerprint in self._weights for fingerprint in ended):
            raise LMError("These LoRA weights are in use. Free them after the requests that use them have ended.")
        if any(fingerprint in self._weights for fingerprint in ended):
            self._context.set_lora(())
            self._weights = ""
        for fingerprint in ended:
            self._pool.forget_weights(fingerprint)
            self._lora.free(fingerprint)

    def _free(self) -> None:
        for action in self.closing:
            action()
        self._samplers.close()
        self._lora.close()
        self._context.close()
        self._model.close()

    # Prompts

    def _fill(self) -> None:
        """Compute prompts until all lanes are taken or nobody waits, but not longer than running requests may wait."""
        deadline = time.perf_counter() + PROMPT_SLICE_S
        while not self.line.closed:
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
        if len(self._running) >= self._model.parallel or not len(self.line):
            return None
        while (job := self.line.take(self._worth)) is not None:
            try:
                self._prepare_for(job)
            except PromptoptError as error:
                self._counts["requests_failed"] += 1
                _fail(job, error)
            else:
                return job
        return None

    def _worth(self, job: Job) -> int | None:
        """Return the prompt tokens that are there already; None if the job needs what running requests do not have."""
        fits = job.weights == self._weights and job.room <= self._context.lane_tokens
        if not fits and self._running:
            return None
        # What fits is served before what needs other weights or another context.
        return self._pool.reusable(job.key, job.weights) + 1 if fits else 0

    def _prepare_for(self, job: Job) -> None:
        """Make the context hold what the job needs; only called while nothing else runs if that means a change."""
        if job.room > self._context.lane_tokens:
            self._remake_context(job.room)
        if job.weights != self._weights:
            self._context.set_lora(self._lora.load(job.request.lora))
            self._weights = job.weights

    def _remake_context(self, tokens: int) -> None:
        """Replace the context by an empty one with lanes for `tokens`; with fewer lanes where memory is short."""
        lanes, before = self._context.lanes, self._context.lane_tokens
        self._context.close()
        while True:
            try:
                context = self._model.make_context(tokens, lanes)
                break
            except ModelError as error:
                if lanes == 1:
                    self._set_context(self._model.make_context(before, 1))
                    raise LMError(f"{error} Not even one request of {tokens} tokens fits.") from error
                lanes //= 2
        if lanes < self._model.parallel:
            self._model.parallel = lanes
            warnings.warn(
                f"{self._model.path.name}: only {lanes} requests of {tokens} tokens fit into memory at once.",
                CapacityWarning,
                stacklevel=2,
            )
        self._set_context(context)

    def _place(self, job: Job) -> Running | None:
        """Give a job its lane with whatever beginning is there already."""
        try:
            sampler = self._samplers.make(job.request.sampling, job.request.grammar)
        except PromptoptError as error:
            self._counts["requests_failed"] += 1
            _fail(job, error)
            return None
        plan = self._pool.plan(job.key, job.weights)
        assert plan is not None
        keep = plan.keep
        if plan.copy_from is not None:
            self._context.fork(plan.copy_from, plan.lane, None if self._whole else keep)
        elif self._whole and keep:
            pass
        elif not self._context.cut(plan.lane, keep):
            keep = 0
        self._pool.take(plan)
        self._lengths[plan.lane] = keep
        self._counts["prompt_tokens"] += len(job.request.prompt)
        self._counts["prompt_tokens_computed"] += len(job.request.prompt) - keep
        running = Running(job, plan.lane, keep, sampler, self._model.vocabulary)
        if self._whole and self._prefix_reuse:
            running.park_at = self._shared_ahead(job)
        return running

    def _shared_ahead(self, job: Job) -> int:
        """Return how many tokens of a prompt requests that wait now will begin with too; 0 if not worth keeping."""
        same = [other.key for other in self.line.glance() if other.weights == job.weights]
        longest = max((shared_tokens(job.key, key) for key in same), default=0)
        longest = min(longest, len(job.request.prompt) - 1)
        return longest if longest >= MIN_COPY_TOKENS else 0

    def _park(self, running: Running) -> None:
        """Keep a copy of a state that cannot be cut back, at the point from where other prompts go on."""
        lane = self._pool.spare()
        if lane is not None:
            self._pool.forget(lane)
            self._context.fork(running.lane, lane, None)
            self._pool.hold(lane, running.job.key[: running.computed * TOKEN_BYTES], running.job.weights)
            self._lengths[lane] = running.computed

    def _compute_chunk(self, running: Running) -> None:
        """Compute the next part of a prompt; after the last part choose the first token."""
        if running.given_up:
            self._prefilling = None
            self._leave(running)
            return
        prompt, begin = running.prompt, running.computed
        stop = running.park_at if running.park_at > begin else len(prompt)
        _, end = chunks(begin, stop, BATCH_TOKENS)[0]
        last = end == len(prompt)
        self._context.batch.set_prompt(prompt[begin:end], begin, running.lane, last_logits=last)
        self._decode(end - begin)
        running.computed = end
        self._lengths[running.lane] = end
        if end == running.park_at:
            self._park(running)
        if not last:
            return
        if not self._whole:
            self._pool.hold(running.lane, running.job.key, running.job.weights)
        self._prefilling = None
        self._running[running.lane] = running
        self._active[running.lane] = 1
        self._advance([running], self._context.logits(1))

    # Next tokens

    def _step(self) -> None:
        """Compute one token of every running request."""
        if not self._running or self.line.closed:
            return
        if self._whole:
            # Rows that fill holes would change states that nothing can undo; these models need no neighbours either.
            self._decode_rows(np.asarray(sorted(self._running)))
            return
        for low, high in segments(sorted(self._running), self._context.lanes, self._rule, GAP_LANES):
            self._decode_rows(np.arange(low, high))

    def _decode_rows(self, lanes: Any) -> None:
        """Decode one token in each of `lanes` (ascending, an int array); idle ones among them only fill holes."""
        batch, count = self._context.batch, len(lanes)
        active = self._active[lanes]
        # Behind the last attention only rows whose logits are wanted go on: where bits must not depend on the number of
        # rows, all of them do.
        all_rows = self._rule != ANY
        batch.tokens[:count] = self._next[lanes]
        batch.positions[:count] = self._lengths[lanes]
        batch.sequences[:count] = lanes
        batch.wanted[:count] = 1 if all_rows else active
        batch.set_count(count)
        self._decode(count)
        self._counts["decode_calls"] += 1
        self._counts["decode_rows"] += count
        running = np.flatnonzero(active)
        logits = self._context.logits(count if all_rows else len(running))
        if all_rows and len(running) < count:
            logits = logits[running]
        for lane in lanes[active == 0].tolist():
            # Rows that only filled a hole leave nothing behind.
            self._context.cut(lane, int(self._lengths[lane]))
        self._lengths[lanes] += active
        self._advance([self._running[lane] for lane in lanes[running].tolist()], logits)

    def _advance(self, rows: list[Running], logits: Any) -> None:
        """Choose the next token of each request from its row of `logits`; end those that are finished."""
        best = logits.argmax(axis=1).tolist()
        for number, running in enumerate(rows):
            row = logits[number]
            if running.sampler is None:
                token = best[number]
                if not np.isfinite(row[token]):
                    raise LMError(
                        f"{self._model.path.name} computes numbers that are not finite. The file is damaged, or its "
                        "weights overflow in this precision: use another quantization or f32."
                    )
            else:
                token = running.sampler.sample(row)
            reason = running.push(token, row)
            if reason is None:
                self._next[running.lane] = token
                continue
            del self._running[running.lane]
            result = running.result(reason)
            self._counts["completion_tokens"] += len(result.tokens)
            self._leave(running)
            if running.job.future.set_running_or_notify_cancel():
                self._counts["requests_done"] += 1
                running.job.future.set_result(result)

    def _leave(self, running: Running) -> None:
        """Give the lane of an ended request back; its prompt stays resident."""
        running.free()
        lane = running.lane
        self._active[lane] = 0
        held = self._pool.held(lane)
        self._context.cut(lane, held)
        self._lengths[lane] = held
        self._pool.release(lane)

    def _drop_given_up(self) -> None:
        for lane, running in list(self._running.items()):
            if running.given_up:
                del self._running[lane]
                self._counts["requests_failed"] += 1
                self._leave(running)

    def _decode(self, rows: int) -> None:
        started = time.perf_counter()
        self._context.decode()
        seconds = time.perf_counter() - started
        self._counts["decode_seconds"] += seconds
        if self._model.options.n_threads is None and self._threads.observe(rows, seconds):
            self._context.set_threads(self._threads.threads)


def _fail(job: Job, error: BaseException) -> None:
    if job.future.set_running_or_notify_cancel():
        job.future.set_exception(error)
