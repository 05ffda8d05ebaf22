"""Who may read the test split, and what one stage alone needs."""

import re
from pathlib import Path

import pytest

from promptopt.config.experiment import ExperimentConfig
from promptopt.errors import StageError
from promptopt.pipeline.context import RunContext
from promptopt.pipeline.prepare import read_split
from promptopt.pipeline.progress import Silent
from promptopt.pipeline.run import ROAD
from promptopt.rundir import RunDir
from tests.config.test_load import GOOD

PACKAGE = Path(__file__).parents[2] / "promptopt"


def test_search_and_training_cannot_open_the_test_split(tmp_path: Path) -> None:
    context = RunContext(ExperimentConfig.model_validate(GOOD), RunDir(tmp_path), Silent())
    with pytest.raises(StageError, match="`train` and `val` only"):
        read_split(context, "test")


def test_the_test_split_has_one_reader_in_the_whole_package() -> None:
    readers = [
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        if re.search(r"[\"'/]test\.jsonl", path.read_text(encoding="utf-8"))
    ]
    assert readers == ["pipeline/judgement.py"]


def test_every_stage_comes_after_those_it_depends_on() -> None:
    seen: set[str] = set()
    for plan in ROAD:
        assert set(plan.after) <= seen
        seen.add(plan.name)
