"""A training as a person watches it: losses, task metric, learning rate, speed, memory. Knows no trainer."""

import os
import sys

from promptopt.records import LossPoint


class TrainingMoment(LossPoint):
    """A new loss point, with what is true of this machine at this moment and belongs into no history.

    Attributes:
        tokens_per_s: tokens trained on per second of late, prompts included.
        memory_bytes: most memory of the GPU so far, or on a CPU what the process holds now.
    """

    tokens_per_s: float | None = None
    memory_bytes: int | None = None

    @property
    def point(self) -> LossPoint:
        """What the history keeps of it."""
        return LossPoint(**self.model_dump(exclude={"tokens_per_s", "memory_bytes"}))


def moment_of(point: LossPoint, tokens_per_s: float | None, memory_bytes: int | None) -> TrainingMoment:
    """Return `point` with the speed and memory of now."""
    return TrainingMoment(**point.model_dump(), tokens_per_s=tokens_per_s, memory_bytes=memory_bytes)


def memory_in_use() -> int | None:
    """Return the bytes that `TrainingMoment.memory_bytes` says; None where the system does not tell."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        return int(torch.cuda.max_memory_allocated())
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return None


class TrainingWatch:
    """Remembers the last value of each figure, because a moment brings one or two of them."""

    def __init__(self) -> None:
        self._last: dict[str, float] = {}

    def text(self, moment: TrainingMoment, steps: int) -> str:
        """Return the step and what the training came to so far, in one line."""
        figures = (("loss", moment.loss), ("eval loss", moment.eval_loss), ("metric", moment.metric))
        self._last.update({name: value for name, value in figures if value is not None})
        known = [f"{name} {self._last[name]:.3f}" for name, _ in figures if name in self._last]
        return ", ".join([f"step {moment.step}/{steps}", *known])

    def pace(self, moment: TrainingMoment, steps: int) -> str:
        """Return how fast it goes and what it takes, in one line."""
        if moment.learning_rate is not None:
            self._last["rate"] = moment.learning_rate
        parts = [f"{moment.tokens_per_s:,.0f} tokens/s"] if moment.tokens_per_s else []
        parts += [f"learning rate {self._last['rate']:.1e}"] if "rate" in self._last else []
        parts += [f"{moment.memory_bytes / 2**30:.2f} GiB"] if moment.memory_bytes else []
        return ", ".join(parts)
