"""Which rows stand in which batch, and how a batch is padded. Knows tokens and seeds, no trainer.

The order depends on (seed, epoch) alone, never on the global random state: a run that goes on after a kill sees the
same batches as an unbroken one.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch.utils.data import Sampler

from promptopt.finetune.rows import IGNORED_LABEL, TokenRow

if TYPE_CHECKING:
    from torch import Tensor

_BATCHES_PER_GROUP = 8


class EpochSampler(Sampler[int]):
    """Row indices of one epoch, shuffled; rows of like length stand in the same batch, to save padding.

    Shuffled rows are taken in groups of eight batches, sorted by length within the group, and the batches are shuffled
    again: the order stays random, and a batch stays a random draw up to its length.

    Args:
        lengths: tokens of each row.
        batch_size: rows per batch; 1 shuffles only.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self._lengths = list(lengths)
        self._batch_size = batch_size
        self._seed = seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order is drawn next; the trainer calls it."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + self._epoch)
        order: list[int] = torch.randperm(len(self._lengths), generator=generator).tolist()
        group = self._batch_size * _BATCHES_PER_GROUP
        batches: list[list[int]] = []
        for start in range(0, len(order), group):
            rows = sorted(order[start : start + group], key=lambda row: (-self._lengths[row], row))
            batches += [rows[first : first + self._batch_size] for first in range(0, len(rows), self._batch_size)]
        # A short last batch must stay last: the data loader cuts the stream every `batch_size` rows.
        full = [batch for batch in batches if len(batch) == self._batch_size]
        rest = [batch for batch in batches if len(batch) < self._batch_size]
        for number in torch.randperm(len(full), generator=generator).tolist():
            yield from full[number]
        for batch in rest:
            yield from batch


def padded(rows: Sequence[TokenRow], pad_id: int) -> "dict[str, Tensor]":
    """Return `input_ids`, `attention_mask` and `labels` of shape (rows, longest), padded on the right."""
    longest = max(len(row.input_ids) for row in rows)
    ids = torch.full((len(rows), longest), pad_id, dtype=torch.long)
    mask = torch.zeros((len(rows), longest), dtype=torch.long)
    labels = torch.full((len(rows), longest), IGNORED_LABEL, dtype=torch.long)
    for number, row in enumerate(rows):
        length = len(row.input_ids)
        ids[number, :length] = torch.tensor(row.input_ids)
        mask[number, :length] = 1
        labels[number, :length] = torch.tensor(row.labels)
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def evaluation_batches(rows: Sequence[TokenRow], batch_size: int, pad_id: int) -> "Iterator[dict[str, Tensor]]":
    """Yield every row once, longest first, in padded batches; memory runs out at once or not at all."""
    ordered = sorted(rows, key=lambda row: (-len(row.input_ids), row.id))
    for start in range(0, len(ordered), batch_size):
        yield padded(ordered[start : start + batch_size], pad_id)
