"""The test split opens once; a second time takes a reason."""

from pathlib import Path

import pytest

from promptopt.errors import StageError
from promptopt.pipeline.openings import open_test_split, read_openings


def test_going_on_is_no_second_opening(tmp_path: Path) -> None:
    open_test_split(tmp_path, "outcome", "rows")
    open_test_split(tmp_path, "outcome", "rows")
    (only,) = read_openings(tmp_path)
    assert "@" in only.who
    assert only.reason == ""


def test_another_outcome_on_the_same_rows_needs_a_reason_which_is_kept(tmp_path: Path) -> None:
    open_test_split(tmp_path, "outcome", "rows")
    with pytest.raises(StageError, match=r"opened by .*@.* on .*--open-test-again"):
        open_test_split(tmp_path, "changed", "rows")
    assert len(read_openings(tmp_path)) == 1
    open_test_split(tmp_path, "changed", "rows", "the labels were wrong")
    assert [one.reason for one in read_openings(tmp_path)] == ["", "the labels were wrong"]
    open_test_split(tmp_path, "changed", "rows")
    open_test_split(tmp_path, "outcome", "rows")
    assert len(read_openings(tmp_path)) == 2


def test_other_rows_are_another_split(tmp_path: Path) -> None:
    open_test_split(tmp_path, "outcome", "rows")
    open_test_split(tmp_path, "changed", "other rows", "not needed")
    assert [one.reason for one in read_openings(tmp_path)] == ["", ""]
