"""Near-duplicates across splits: found, counted, refused or left out."""

import random
from typing import Any

import pytest

from promptopt.config.data import DataConfig
from promptopt.data.loaders import LoadedData, row_id
from promptopt.data.splits import Splits, describe_leaks, near_duplicates_across, split_rows
from promptopt.errors import DataError
from promptopt.records import DataRow

CHANCE = random.Random(0)
WORDS = [f"word{number}" for number in range(500)]


def make_row(text: str) -> DataRow:
    return DataRow(id=row_id({"text": text}), fields={"text": text, "answer": "a"})


def make_config(**changes: Any) -> DataConfig:
    values = {
        "source": {"kind": "jsonl", "path": "unused"},
        "fields": {"text": "text", "answer": "answer"},
        "inputs": ["text"],
        "split": {"train": 60, "val": 20, "test": 20},
    }
    return DataConfig.model_validate({**values, **changes})


def near_pairs(count: int) -> list[DataRow]:
    """Texts of 60 words, and each once more with another last word."""
    texts = [" ".join(CHANCE.choices(WORDS, k=60)) for _ in range(count)]
    return [make_row(text) for text in texts] + [make_row(f"{text} end") for text in texts]


LOADED = LoadedData(tuple(near_pairs(100)), None, 0)
SPLITS = Splits(
    train=(make_row("one two three four five six seven eight nine ten"), make_row("something else altogether here")),
    val=(make_row("a b c d e f g h i j k l"),),
    test=(make_row("one two three four five six seven eight nine ten eleven"), make_row("A B C D E F G H I J K L?!")),
)


def test_leaks_are_found_once_per_row_in_the_earlier_split() -> None:
    leaks = near_duplicates_across(SPLITS, make_config())
    assert [(leak.split, leak.other_split) for leak in leaks] == [("val", "test"), ("train", "test")]
    assert (leaks[0].row_id, leaks[0].other_id, leaks[0].similarity) == (SPLITS.val[0].id, SPLITS.test[1].id, 1.0)
    assert leaks[1].similarity == 8 / 9
    message = describe_leaks(leaks)
    assert "1 of val nearly equal one of test, 1 of train nearly equal one of test" in message
    assert "`data.group`" in message


def test_the_threshold_decides() -> None:
    assert len(near_duplicates_across(SPLITS, make_config(near_duplicate_threshold=0.95))) == 1


def test_policies() -> None:
    assert near_duplicates_across(SPLITS, make_config(near_duplicates="off")) == []
    with pytest.raises(DataError, match="Near-duplicates across splits: 1 of val"):
        near_duplicates_across(SPLITS, make_config(near_duplicates="error"))


def test_dropping_leaves_no_leak_and_fills_the_splits_from_what_is_left() -> None:
    warned = split_rows(LOADED, make_config())
    leaks = near_duplicates_across(warned, make_config())
    assert len(leaks) > 10
    config = make_config(near_duplicates="drop")
    splits = split_rows(LOADED, config)
    assert near_duplicates_across(splits, make_config()) == []
    assert splits.near_duplicates > 10
    assert splits.test == warned.test
    assert (len(splits.train), len(splits.val), len(splits.test)) == (60, 20, 20)
    assert 60 + 20 + 20 + splits.near_duplicates + splits.left_over == len(LOADED.rows)
    assert split_rows(LOADED, config) == splits


def test_dropping_everything_is_an_error() -> None:
    rows = tuple(make_row("the very same words again and again " + "!" * number) for number in range(40))
    with pytest.raises(DataError, match=r"Every row of val nearly equals .*`drop`.*near_duplicate_threshold"):
        split_rows(LoadedData(rows, None, 0), make_config(near_duplicates="drop"))
