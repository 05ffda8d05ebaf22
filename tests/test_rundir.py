"""The run directory: what survives a kill, and what a changed configuration does to it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from promptopt.errors import ConfigError, StageError
from promptopt.records import ChatMessage, DataRow
from promptopt.rundir import (
    RunDir,
    append_jsonl,
    hash_inputs,
    read_json,
    read_jsonl,
    write_json,
    write_jsonl,
    write_text,
)


def _row(name: str) -> DataRow:
    return DataRow(id=name, fields={"text": name + "\u2028\u0085"})


def test_jsonl_comes_back_as_written(tmp_path: Path) -> None:
    rows = [_row("a"), _row("b")]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    append_jsonl(tmp_path / "rows.jsonl", _row("c"))
    assert read_jsonl(tmp_path / "rows.jsonl", DataRow) == [*rows, _row("c")]


def test_a_line_torn_by_a_kill_is_cut_off_and_the_file_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    append_jsonl(path, _row("a"))
    with path.open("a", encoding="utf-8") as file:
        file.write('{"id": "b", "fi')
    assert read_jsonl(path, DataRow) == [_row("a")]
    append_jsonl(path, _row("c"))
    assert read_jsonl(path, DataRow) == [_row("a"), _row("c")]


def test_a_missing_file_names_the_way_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="promptopt run"):
        read_json(tmp_path / "result.json", ChatMessage)


def test_write_text_leaves_the_old_file_when_writing_fails(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    write_text(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "new \ud800")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_stage_is_complete_only_with_its_last_file(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    stage = run.stage("search", {"trials": 3})
    assert not stage.complete
    stage.finish({"best": 1})
    again = run.stage("search", {"trials": 3})
    assert again.complete
    assert json.loads((again.path / "stage.json").read_text())["outputs"] == {"best": 1}


def test_another_configuration_sets_the_old_stage_aside_and_takes_it_up_again(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    first = run.stage("search", {"trials": 3})
    write_text(first.path / "study.db", "precious")
    first.finish()
    second = run.stage("search", {"trials": 4})
    assert not second.complete
    assert (tmp_path / f"search.{hash_inputs({'trials': 3})}" / "study.db").read_text() == "precious"
    back = run.stage("search", {"trials": 3})
    assert back.complete
    assert (back.path / "study.db").read_text() == "precious"


def test_a_folder_that_was_no_stage_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "search").mkdir()
    (tmp_path / "search" / "notes.txt").write_text("mine")
    stage = RunDir(tmp_path).stage("search", 1)
    assert not (stage.path / "notes.txt").exists()
    assert [path.read_text() for path in tmp_path.glob("search.*/notes.txt")] == ["mine"]


def test_two_processes_cannot_work_in_one_run(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from promptopt.rundir import RunDir; "
        "run = RunDir(Path(sys.argv[1]))\nwith run.lock(): print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline().strip() == "held"
        with pytest.raises(ConfigError, match="Another promptopt process"), RunDir(tmp_path).lock():
            pass
        other.kill()
    with RunDir(tmp_path).lock():
        write_json(tmp_path / "x.json", {"a": 1})
