"""Requests in lanes: the context, what its lanes hold, and which weights they were computed with.

One thread only: the engine's worker. Decides nothing about turns; `Batcher` does.
"""

import warnings
from typing import Any

import numpy as np

from promptopt.errors import LMError, ModelError
from promptopt.lm.llama_cpp.batching.lanes import LanePool
from promptopt.lm.llama_cpp.batching.prefix_tree import TOKEN_BYTES
from promptopt.lm.llama_cpp.batching.running import Running
from promptopt.lm.llama_cpp.context import LaneContext
from promptopt.lm.llama_cpp.lora import LoraSet, LoraShelf
from promptopt.lm.llama_cpp.model import CapacityWarning, NativeModel
from promptopt.lm.llama_cpp.requests import Job
from promptopt.lm.llama_cpp.sampling import Sampler


class Seating:
    """The lanes of one model at work.

    Attributes:
        context: the native context; replaced by a larger one when a request needs it.
        lengths: tokens each lane holds, int32 (lanes,).
        next_tokens: the token each running lane computes next, int32 (lanes,).
        active: 1 where a request generates, int8 (lanes,).
        whole: states can be copied but not cut back (recurrent models).

    Raises:
        ModelError: there is no memory for a context.
    """

    def __init__(self, model: NativeModel, *, prefix_reuse: bool) -> None:
        self._model = model
        self._reuse = prefix_reuse
        self.whole = not model.can_reuse_prefixes
        self._lora = LoraShelf(model.lib, model.raw, model.path.name)
        self._set_context(model.make_context(0))

    def _set_context(self, context: LaneContext) -> None:
        self.context = context
        self._pool = LanePool(context.lanes, reuse=self._reuse, whole=self.whole)
        self.lengths = np.zeros(context.lanes, dtype=np.int32)
        self.next_tokens = np.zeros(context.lanes, dtype=np.int32)
        self.active = np.zeros(context.lanes, dtype=np.int8)
        self._weights = ""

    @property
    def resident_tokens(self) -> int:
        """Prompt tokens that are kept, shared ones counted once."""
        return self._pool.unique_tokens

    @property
    def kv_bytes(self) -> int:
        """Memory that the lanes' keys and values take, used or not."""
        return self.context.lanes * self.context.lane_tokens * self._model.kv_bytes_per_token

    def fits(self, job: Job) -> bool:
        """Whether the job can run beside what runs now."""
        return job.weights == self._weights and job.room <= self.context.lane_tokens

    def reusable(self, job: Job) -> int:
        """Return the prompt tokens of a job that are there already."""
        return self._pool.reusable(job.key, job.weights)

    def prepare_for(self, job: Job) -> None:
        """Make the context hold what the job needs; if that means a change, nothing may be running.

        Raises:
            ModelError: the LoRA weights cannot be used.
            LMError: there is no memory for a request of this size.
        """
        if job.room > self.context.lane_tokens:
            self.remake(job.room)
        if job.weights != self._weights:
            self.context.set_lora(self._lora.load(job.request.lora))
            self._weights = job.weights

    def remake(self, tokens: int) -> None:
        """Replace the context by an empty one with lanes for `tokens`; with fewer lanes where memory is short."""
        lanes, before = self.context.lanes, self.context.lane_tokens
        self.context.close()
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

    def place(self, job: Job, sampler: Sampler | None) -> Running:
        """Give a job its lane with whatever beginning is there already; one must be free."""
        plan = self._pool.plan(job.key, job.weights)
        assert plan is not None
        keep = plan.keep
        if plan.copy_from is not None:
            self.context.fork(plan.copy_from, plan.lane, None if self.whole else keep)
        elif not (self.whole and keep) and not self.context.cut(plan.lane, keep):
            keep = 0
        self._pool.take(plan)
        self.lengths[plan.lane] = keep
        return Running(job, plan.lane, keep, sampler, self._model.vocabulary)

    def computed(self, running: Running, end: int) -> None:
        """Record that a prompt is in its lane up to `end`; once whole, others can start from it."""
        running.computed = end
        self.lengths[running.lane] = end
        if end == running.park_at:
            self._park(running)
        if end == len(running.prompt):
            self.active[running.lane] = 1
            if not self.whole:
                self._pool.hold(running.lane, running.job.key, running.job.weights)

    def _park(self, running: Running) -> None:
        """Keep a copy of a state that cannot be cut back, at the point from where other prompts go on."""
        lane = self._pool.spare()
        if lane is not None:
            self._pool.forget(lane)
            self.context.fork(running.lane, lane, None)
            self._pool.hold(lane, running.job.key[: running.computed * TOKEN_BYTES], running.job.weights)
            self.lengths[lane] = running.computed

    def drop_fillers(self, lanes: Any) -> None:
        """Forget what `lanes` (an int array) computed only to fill holes of a batch."""
        for lane in lanes.tolist():
            self.context.cut(lane, int(self.lengths[lane]))

    def leave(self, running: Running) -> None:
        """Give the lane of an ended request back; its prompt stays resident."""
        running.free()
        lane = running.lane
        self.active[lane] = 0
        held = self._pool.held(lane)
        self.context.cut(lane, held)
        self.lengths[lane] = held
        self._pool.release(lane)

    def free_lora(self, lora: LoraSet, *, running: bool) -> None:
        """Unload LoRA weights and forget what was computed with them.

        Raises:
            LMError: a request that is running uses them.
        """
        ended = {item.fingerprint for item in lora}
        if any(fingerprint in self._weights for fingerprint in ended):
            if running:
                raise LMError("These LoRA weights are in use. Free them after the requests that use them have ended.")
            self.context.set_lora(())
            self._weights = ""
        for fingerprint in ended:
            self._pool.forget_weights(fingerprint)
            self._lora.free(fingerprint)

    def close(self) -> None:
        """Free the context and the LoRA weights."""
        self._lora.close()
        self.context.close()
