"""The loop of several trainings in one forward. Imported only when training starts."""

import contextlib
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch

from promptopt.errors import TrainingError
from promptopt.finetune import lora
from promptopt.finetune.base_model import LoadedBase
from promptopt.finetune.batches import padded
from promptopt.finetune.linear4bit import check_guarded
from promptopt.finetune.session import LORA_DIR, log_stops, pad_token, publish_best
from promptopt.finetune.together.forward import LoraSet, SharedForward, Slice
from promptopt.finetune.together.member import Member
from promptopt.finetune.together.order import loss_tokens
from promptopt.finetune.trainer import completion_log_probs, mean_loss
from promptopt.records import FinetuneResult

if TYPE_CHECKING:
    from torch import Tensor

    from promptopt.finetune.rows import TokenRow
    from promptopt.finetune.together.prepared import Prepared


class SharedTraining:
    """Trains all of `prepared`, `at_once` of them in one batch. Changes `base`, as its owner knows.

    Args:
        end_ids: tokens at which generation stops.
    """

    def __init__(
        self, base: LoadedBase, prepared: "Sequence[Prepared]", end_ids: frozenset[int], at_once: int | None = None
    ) -> None:
        self._base = base
        self._end_ids = end_ids
        self._at_once = at_once or len(prepared)
        self._pad = pad_token(base)
        sets = [LoraSet(f"set{number}", one.plan.recipe, one.plan.seed) for number, one in enumerate(prepared)]
        self._shared = SharedForward(base.model, sets)
        if base.held in ("nf4", "fp4"):
            check_guarded(self._shared.model)
        self._members = [Member(lora_set, one, base.device) for lora_set, one in zip(sets, prepared, strict=True)]
        self._failed: dict[str, TrainingError] = {}
        self._first_losses: dict[tuple[int, int], float] = {}

    def run(self) -> list[FinetuneResult | TrainingError]:
        """Train each to its end, or from its last complete checkpoint to its end; publish the best LoRA weights."""
        waiting = list(self._members)
        live: list[Member] = []
        outcomes: dict[str, FinetuneResult | TrainingError] = {}
        while live or waiting:
            while waiting and len(live) < self._at_once:
                live.append(waiting.pop(0))
                self._begin(live[-1])
            for member in [member for member in live if member.finished or member.lora.name in self._failed]:
                live.remove(member)
                outcomes[member.lora.name] = self._end(member)
            if live:
                self._tick(live)
        return [outcomes[member.lora.name] for member in self._members]

    def _begin(self, member: Member) -> None:
        member.begin(self._shared)
        if member.fresh:
            # Untrained LoRA weights change nothing: trainings that share rows share this loss, too.
            key = id(member.measured), member.plan.recipe.batch_size
            if key not in self._first_losses:
                self._first_losses[key] = self._loss_of(member)
            with self._may_fail(member):
                member.note_evaluation(self._first_losses[key])

    def _tick(self, live: Sequence[Member]) -> None:
        """Train every member on its next batch."""
        with self._timed(live):
            batches = [member.next_batch() for member in live]
            with self._shared.using(*(part for _, part in batches)) as model, self._precision():
                losses = self._losses(model, live, [rows for rows, _ in batches])
                if losses:
                    torch.stack(losses).sum().backward()
            stepped = [member for member in live if member.lora.name not in self._failed and member.after_backward()]
        for member in stepped:
            self._after_step(member)

    def _losses(self, model: Any, live: Sequence[Member], batches: "list[tuple[TokenRow, ...]]") -> "list[Tensor]":
        """Return the loss of every member; one that is no number fails its member, and only that."""
        batch = padded([row for rows in batches for row in rows], self._pad)
        tensors = {name: tensor.to(self._base.device) for name, tensor in batch.items()}
        log_probs, _ = completion_log_probs(model, tensors)
        losses = []
        for member, part in zip(live, log_probs.split([loss_tokens(rows) for rows in batches]), strict=True):
            with self._may_fail(member):
                losses.append(member.loss(part))
        return losses

    def _after_step(self, member: Member) -> None:
        with self._may_fail(member):
            evaluated = member.evaluation_due
            if evaluated:
                member.note_evaluation(self._loss_of(member))
            member.save_if_due(evaluated)

    def _loss_of(self, member: Member) -> float:
        with self._timed([member]), self._alone(member) as model, self._precision():
            return mean_loss(model, member.measured.rows, member.plan.recipe.batch_size, self._pad)

    def _end(self, member: Member) -> FinetuneResult | TrainingError:
        failure = self._failed.get(member.lora.name)
        if failure is not None:
            member.end()
            return failure
        result = publish_best(
            member.plan, self._base, member.rows, member.measured, member.method, member.state, member.trained_tokens
        )
        if not member.plan.judge.asks:
            lora.load_weights(self._shared.model, member.plan.out_dir / LORA_DIR, member.lora.name)
            with self._alone(member) as model:
                log_stops(model, member.measured, self._end_ids)
        trained = sum(parameter.numel() for parameter in self._shared.parameters(member.lora))
        member.end()
        return result.model_copy(update={"trainable_parameters": trained, "stopped_early": member.stopped})

    @contextlib.contextmanager
    def _alone(self, member: Member) -> Iterator[Any]:
        """Let the model answer with the weights of one member, without noise and dropout of the base."""
        model = self._shared.model
        model.eval()
        try:
            with self._shared.using(Slice(member.lora)):
                yield model
        finally:
            model.train()

    def _precision(self) -> Any:
        if self._base.device == "cpu":
            return contextlib.nullcontext()
        return torch.autocast(self._base.device, dtype=torch.bfloat16)

    @contextlib.contextmanager
    def _timed(self, members: Sequence[Member]) -> Iterator[None]:
        """Count the seconds, divided equally, as time of `members`."""
        started = time.monotonic()
        yield
        share = (time.monotonic() - started) / len(members)
        for member in members:
            clock = member.plan.judge.clock
            clock.set(clock.seconds + share)

    @contextlib.contextmanager
    def _may_fail(self, member: Member) -> Iterator[None]:
        """Take a TrainingError as the end of this member and of no other; what its judge raises is raised."""
        try:
            yield
        except TrainingError as error:
            if member.plan.judge.failure is error:
                raise
            self._failed[member.lora.name] = error
