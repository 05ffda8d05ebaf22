"""Which rows a training takes at which step: the order of `batches.EpochSampler`, cut as the Trainer cuts it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from promptopt.config.recipe import TrainingRecipe
from promptopt.finetune.batches import EpochSampler
from promptopt.finetune.rows import TokenRow


@dataclass(frozen=True)
class Step:
    """What one optimizer step is made of.

    Attributes:
        batches: rows of each batch whose gradients are summed.
        epoch: epochs trained when the step is done.
    """

    batches: tuple[tuple[TokenRow, ...], ...]
    epoch: float

    @property
    def tokens(self) -> int:
        """Tokens that carry loss."""
        return sum(loss_tokens(batch) for batch in self.batches)


class TrainingOrder:
    """The steps of a whole training.

    Attributes:
        steps_per_epoch, max_steps: optimizer steps.
    """

    def __init__(self, rows: Sequence[TokenRow], recipe: TrainingRecipe, seed: int) -> None:
        self._rows = rows
        self._size = recipe.batch_size
        self._summed = recipe.gradient_accumulation
        self._sampler = EpochSampler([len(row.input_ids) for row in rows], self._size, seed)
        self._batches = math.ceil(len(rows) / self._size)
        self.steps_per_epoch = math.ceil(self._batches / self._summed)
        self.max_steps = math.ceil(recipe.epochs * self.steps_per_epoch)
        self._drawn: tuple[int, list[int]] = (-1, [])

    def step(self, number: int) -> Step:
        """Return the step at `number`, counted from 0."""
        epoch, within = divmod(number, self.steps_per_epoch)
        if self._drawn[0] != epoch:
            self._sampler.set_epoch(epoch)
            self._drawn = (epoch, list(self._sampler))
        first, last = within * self._summed, min((within + 1) * self._summed, self._batches)
        cuts = [self._drawn[1][batch * self._size : (batch + 1) * self._size] for batch in range(first, last)]
        return Step(
            tuple(tuple(self._rows[index] for index in indices) for indices in cuts), epoch + last / self._batches
        )


def loss_tokens(rows: Sequence[TokenRow]) -> int:
    """Return how many tokens of `rows` carry loss; nothing predicts the first token of a row."""
    return sum(min(row.completion_tokens, len(row.input_ids) - 1) for row in rows)
