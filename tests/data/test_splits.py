"""Splits: stable places, whole groups, no leaks."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptopt.config.data import DataConfig
from promptopt.data.loaders import LoadedData, row_id
from promptopt.data.splits import Splits, check_leaks, fingerprint, position, split_rows
from promptopt.errors import DataError
from promptopt.records import DataRow


def make_row(number: int, group: str = "") -> DataRow:
    return DataRow(id=row_id({"n": number}), fields={"n": number}, group=group)


def make_config(
    train: int = 500, val: int = 100, test: int = 100, seed: int = 0, group: str | None = None
) -> DataConfig:
    return DataConfig.model_validate(
        {
            "source": {"kind": "jsonl", "path": "unused"},
            "fields": {"n": "n"},
            "inputs": ["n"],
            "group": group,
            "split": {"train": train, "val": val, "test": test},
            "seed": seed,
        }
    )


def loaded(rows: Sequence[DataRow], test_rows: Sequence[DataRow] | None = None) -> LoadedData:
    return LoadedData(tuple(rows), None if test_rows is None else tuple(test_rows), 0)


def places(splits: Splits) -> dict[str, str]:
    return {
        row.id: name
        for name, rows in (("train", splits.train), ("val", splits.val), ("test", splits.test))
        for row in rows
    }


ROWS = [make_row(number) for number in range(300)]
GROUPED = [make_row(number, f"document {number // 5}") for number in range(300)]
seeds = st.integers(0, 10_000)


@given(seeds)
@settings(max_examples=30, deadline=None)
def test_every_row_stands_in_one_split(seed: int) -> None:
    splits = split_rows(loaded(ROWS), make_config(seed=seed))
    assert len(places(splits)) == len(splits.train) + len(splits.val) + len(splits.test) == len(ROWS)
    assert len(splits.train) > len(splits.val) + len(splits.test)


@given(seeds, st.permutations(ROWS[:40]), st.integers(20, 40))
@settings(max_examples=30, deadline=None)
def test_order_and_other_rows_move_nothing(seed: int, rows: list[DataRow], first: int) -> None:
    config = make_config(40, 40, 40, seed=seed)
    try:
        few, all_of_them = split_rows(loaded(rows[:first]), config), split_rows(loaded(rows), config)
    except DataError:
        return  # a split would be empty
    assert places(few).items() <= places(all_of_them).items()
    assert all_of_them == split_rows(loaded(rows[::-1]), config)


@given(seeds)
@settings(max_examples=30, deadline=None)
def test_a_full_split_drops_rows_but_moves_none(seed: int) -> None:
    config = make_config(50, 10, 10, seed=seed)
    few, many = split_rows(loaded(ROWS[:150]), config), split_rows(loaded(ROWS), config)
    before, after = places(few), places(many)
    assert all(after[key] == before[key] for key in before.keys() & after.keys())
    assert (len(many.train), len(many.val), len(many.test), many.left_over) == (50, 10, 10, 230)


@given(seeds)
@settings(max_examples=30, deadline=None)
def test_groups_stay_together(seed: int) -> None:
    splits = split_rows(loaded(GROUPED), make_config(seed=seed, group="title"))
    check_leaks(splits)
    where = places(splits)
    for start in range(0, 300, 5):
        assert len({where[row.id] for row in GROUPED[start : start + 5]}) == 1


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_a_test_source_is_test_only(seed: int) -> None:
    splits = split_rows(loaded(ROWS[:200], ROWS[150:250]), make_config(100, 50, 20, seed=seed))
    assert {row.id for row in splits.test} <= {row.id for row in ROWS[150:250]}
    assert {row.id for row in (*splits.train, *splits.val)} <= {row.id for row in ROWS[:150]}
    assert (len(splits.test), splits.overlapping) == (20, 50)


def test_a_group_of_the_test_source_is_test_only() -> None:
    splits = split_rows(loaded(GROUPED[:203], GROUPED[203:]), make_config(group="title"))
    assert splits.overlapping == 3  # the three first rows of the document that the cut goes through
    check_leaks(splits)


def test_another_seed_is_another_split() -> None:
    assert places(split_rows(loaded(ROWS), make_config())) != places(split_rows(loaded(ROWS), make_config(seed=1)))


def test_an_empty_split_is_an_error_with_counts_and_advice() -> None:
    with pytest.raises(DataError, match=r"train 1, val 0, test 0, out of 1 rows in 1 different rows.*no seed"):
        split_rows(loaded(ROWS[:1]), make_config(train=10_000, val=1, test=1))
    bad = next(seed for seed in range(1000) if _fails(seed))
    with pytest.raises(DataError, match=r"`data.seed: (\d+)` fills every split") as caught:
        split_rows(loaded(ROWS[:5]), make_config(2, 2, 2, seed=bad))
    advised = int(str(caught.value).split("`data.seed: ")[1].split("`")[0])
    assert len(places(split_rows(loaded(ROWS[:5]), make_config(2, 2, 2, seed=advised)))) >= 3


def _fails(seed: int) -> bool:
    try:
        split_rows(loaded(ROWS[:5]), make_config(2, 2, 2, seed=seed))
    except DataError:
        return True
    return False


def test_leaks_are_found() -> None:
    with pytest.raises(DataError, match=rf"both train and test, e\.g\. id {ROWS[0].id}"):
        check_leaks(Splits((ROWS[0],), (ROWS[1],), (ROWS[0],)))
    with pytest.raises(DataError, match=r"both val and test, e\.g\. 'document 0'"):
        check_leaks(Splits((ROWS[9],), (GROUPED[0],), (GROUPED[1],)))


def test_places_never_change() -> None:
    """A change of the hash would silently mix the splits of runs that are under way: the values are written down."""
    assert position("row:0123456789abcdef", 0) == 0.8619747772684936
    assert row_id({"question": "Café?", "n": 1}) == row_id({"n": 1, "question": "Cafe\u0301?"}) == "0ab200b1a9d7318a"
    assert all(0 <= position(str(number), 3) < 1 for number in range(1000))


def test_fingerprint() -> None:
    assert fingerprint(ROWS) == fingerprint(ROWS[::-1])
    assert fingerprint(ROWS) != fingerprint(ROWS[1:])
    changed = ROWS[0].model_copy(update={"fields": {"n": 0, "answer": "another"}})
    assert fingerprint([changed, *ROWS[1:]]) != fingerprint(ROWS)
    assert len(fingerprint([])) == 64
