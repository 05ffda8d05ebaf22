"""The data stage: near-duplicates across splits are told of, refused or left out, and stand in the overview."""

import json
from pathlib import Path

import pytest

from promptopt.config.experiment import ExperimentConfig
from promptopt.errors import DataError
from promptopt.evaluation.report_data import DataOverview
from promptopt.evaluation.report_parts import data_section
from promptopt.pipeline.context import RunContext
from promptopt.pipeline.prepare import data_settings, run_data
from promptopt.pipeline.progress import Silent
from promptopt.rundir import RunDir, read_json
from tests.cli.test_bad_input import EXPERIMENT

DOCUMENT = " ".join(f"word{number}" for number in range(60))


class Listener(Silent):
    """Remembers what was said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


def make_context(folder: Path, policy: str, listener: Listener) -> RunContext:
    path = folder / "rows.jsonl"
    rows = [{"document": f"{n} {DOCUMENT}", "question": f"{n}?", "answer": "x"} for n in range(40)]
    rows += [{"document": f"{n} " * 30, "question": f"{n}?", "answer": "x"} for n in range(40)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = {**EXPERIMENT["data"], "near_duplicates": policy}  # type: ignore[dict-item]
    data["source"] = {"kind": "jsonl", "path": str(path)}
    config = ExperimentConfig.model_validate({**EXPERIMENT, "data": data})
    return RunContext(config, RunDir(folder / "run"), listener)


def run(folder: Path, policy: str) -> tuple[DataOverview, list[str]]:
    listener = Listener()
    context = make_context(folder, policy, listener)
    stage = context.open("data", data_settings(context), ())
    run_data(context, stage)
    return read_json(stage.path / "overview.json", DataOverview), listener.said


def test_a_counted_warning_is_the_default_and_stands_in_the_report(tmp_path: Path) -> None:
    overview, said = run(tmp_path, "warn")
    assert overview.near_duplicates > 0
    assert len(said) == 1
    assert "Near-duplicates across splits" in said[0]
    assert f"Still in: {overview.near_duplicates} rows" in data_section(overview)


def test_dropped_rows_are_counted(tmp_path: Path) -> None:
    overview, said = run(tmp_path, "drop")
    assert (overview.near_duplicates, said) == (0, [])
    assert overview.near_duplicates_dropped > 0
    assert f"{overview.near_duplicates_dropped} rows of train or val that nearly equal" in data_section(overview)


def test_an_error_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Near-duplicates across splits"):
        run(tmp_path, "error")


def test_off_looks_at_nothing(tmp_path: Path) -> None:
    overview, said = run(tmp_path, "off")
    assert (overview.near_duplicates, overview.near_duplicates_dropped, said) == (0, 0, [])
