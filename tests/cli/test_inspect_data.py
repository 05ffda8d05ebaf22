"""`promptopt data inspect`: tables and JSON for people and programs."""

import json
from pathlib import Path

import pytest
import yaml

from promptopt.cli import main as cli
from tests.cli.test_bad_input import EXPERIMENT, ROWS


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / "rows.jsonl").write_text(ROWS)
    (tmp_path / "experiment.yaml").write_text(yaml.safe_dump(EXPERIMENT))
    return tmp_path


def test_an_experiment_is_shown_with_tokens_of_its_model(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["data", "inspect", "experiment.yaml"]) == 0
    shown = capsys.readouterr().out
    assert "rows.jsonl: 60 rows" in shown
    assert "languages of the inputs (rows): en 60" in shown
    assert "splits: train 20, val 10, test 10; " in shown
    assert "no leaks between splits were found" in shown
    assert "tokens as" in shown
    for field in ("document", "question", "answer"):
        assert f"│ {field} " in shown


def test_json_holds_the_same(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["data", "inspect", "experiment.yaml", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["rows"], found["splits"]["rows"]) == (60, {"train": 20, "val": 10, "test": 10})
    lengths = {field["name"]: field["tokens"]["median"] for field in found["fields"]}
    assert lengths["document"] > lengths["answer"] > 0
    assert found["tokenizer"].endswith("model")


def test_a_file_with_text_that_looks_like_markup(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = ['{"[bold]name": "[/red]", "n": 1}', '{"[bold]name": "[/red]", "n": 2}', "{oops"]
    (folder / "odd[b].jsonl").write_text("\n".join(rows))
    assert cli.main(["data", "inspect", "odd[b].jsonl"]) == 0
    shown = capsys.readouterr().out
    assert "[bold]name" in shown
    assert "[/red]" in shown
    assert "bad row: odd[b].jsonl, line 3: not JSON" in shown


def test_leaks_are_shown(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = " ".join(f"word{number}" for number in range(60))
    rows = [{"document": document, "question": f"Which is number {n}?", "answer": "x"} for n in range(40)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert cli.main(["data", "inspect", "experiment.yaml"]) == 0
    shown = capsys.readouterr().out
    assert "LEAK, near-duplicates train ~ test: " in shown
    assert "LEAK, same 'document': " in shown
    assert "rows.jsonl, line " in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent.yaml"], "There is no file or folder 'absent.yaml'"),
        (["rows.jsonl", "--model", "rows.jsonl"], "neither a GGUF nor a folder with tokenizer.json"),
        (["empty"], "holds no document"),
    ],
)
def test_errors_are_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    (folder / "empty").mkdir()
    assert cli.main(["data", "inspect", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
