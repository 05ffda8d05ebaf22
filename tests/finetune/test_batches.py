"""The order of rows is a function of seed and epoch, and batches hold rows of like length."""

import random

from promptopt.finetune.batches import EpochSampler, evaluation_batches
from promptopt.finetune.rows import IGNORED_LABEL, TokenRow


def test_every_row_comes_once_in_an_order_of_its_own_per_epoch() -> None:
    generator = random.Random(0)
    lengths = [generator.randint(10, 500) for _ in range(103)]
    sampler = EpochSampler(lengths, 8, seed=3)
    first = list(sampler)
    assert sorted(first) == list(range(103)) == sorted(set(first))
    assert list(sampler) == first == list(EpochSampler(lengths, 8, seed=3))
    sampler.set_epoch(1)
    assert list(sampler) != first
    assert list(EpochSampler(lengths, 8, seed=4)) != first


def test_grouping_saves_most_of_the_padding() -> None:
    generator = random.Random(0)
    lengths = [generator.randint(10, 500) for _ in range(400)]

    def padded(order: list[int]) -> int:
        batches = [order[start : start + 8] for start in range(0, len(order), 8)]
        return sum(max(lengths[row] for row in batch) * len(batch) for batch in batches) - sum(lengths)

    assert padded(list(EpochSampler(lengths, 8, seed=0))) < 0.35 * padded(list(EpochSampler(lengths, 1, seed=0)))


def test_evaluation_sees_every_row_once_and_masks_the_padding() -> None:
    rows = [TokenRow(str(length), tuple(range(length)), 2) for length in (3, 9, 5)]
    batches = list(evaluation_batches(rows, 2, pad_id=0))
    assert [tuple(batch["input_ids"].shape) for batch in batches] == [(2, 9), (1, 3)]
    assert batches[0]["attention_mask"].sum() == 14
    assert batches[0]["labels"][1].tolist() == [IGNORED_LABEL] * 2 + [2, 3, 4] + [IGNORED_LABEL] * 4
