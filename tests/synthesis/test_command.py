"""`promptopt data synthesize` with a teacher that writes good rows: what is printed, written, and read back."""

import json
from pathlib import Path

import pytest
import yaml

from promptopt.cli import main as cli
from promptopt.config.data import DataConfig
from promptopt.data.loaders import load_rows
from promptopt.lm.protocol import Messages
from promptopt.lm.scripted import ScriptedLM
from tests.synthesis.writers import documents, write_by_rule


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs").mkdir()
    for document in documents(3):
        (tmp_path / "docs" / f"{document.id}.txt").write_text(document.passages[0])
    return tmp_path


def _run(monkeypatch: pytest.MonkeyPatch, lm: ScriptedLM, **changes: object) -> int:
    monkeypatch.setattr("promptopt.pipeline.synthesizing.writer_lm", lambda *settings, **more: lm)
    values = {
        "name": "items",
        "task": "question_answer",
        "source": {"kind": "documents", "path": "docs"},
        "teacher": {"kind": "server", "model": "openai/unused"},
        "checks": {"near_duplicates": 1.0},
        "rows": 12,
        **changes,
    }
    Path("synthesis.yaml").write_text(yaml.safe_dump(values))
    return cli.main(["data", "synthesize", "synthesis.yaml"])


def test_rows_are_written_and_read_back_as_the_guide_says(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(monkeypatch, ScriptedLM(write_by_rule)) == 0
    shown = capsys.readouterr().out
    assert "rows: 12 of 12 wanted, from " in shown
    assert "rejected: not_" in shown
    assert "documents: 3, 4 to 4 rows each; 0 without a row, 0 given up" in shown
    assert "cost: " in shown
    out = folder / "synthetic" / "items"
    assert f"written: {Path('synthetic', 'items', 'rows.jsonl')}" in shown
    rejected = [json.loads(line) for line in (out / "rejected.jsonl").read_text().splitlines()]
    report = json.loads((out / "report.json").read_text())
    assert sum(report["rejected"].values()) == len(rejected) == report["calls"] - 12
    data = DataConfig.model_validate(
        {
            "source": {"kind": "jsonl", "path": str(out / "rows.jsonl")},
            "fields": {"document": "document", "question": "question", "answer": "answer"},
            "inputs": ["document", "question"],
            "group": "provenance.document_id",
            "split": {"train": 1, "val": 1, "test": 1},
        }
    )
    rows = load_rows(data).rows
    assert len(rows) == 12
    assert {row.group for row in rows} == {"d0.txt", "d1.txt", "d2.txt"}


def test_keywords_are_taken_from_the_passage(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(messages: Messages) -> str:
        prompt = messages[-1]["content"]
        items = [f"Item {d}x{i}" for d in range(3) for i in range(12) if f"Item {d}x{i} lies" in prompt]
        fresh = [item for item in items if f"{item}," not in prompt and f", {item}" not in prompt]
        chosen = [*fresh[:2], fresh[0]]
        text = f"{fresh[0]} and {fresh[1]} are easy to find: each of them lies in a room of its own."
        return json.dumps({"keywords": chosen, "text": text})

    assert _run(monkeypatch, ScriptedLM(write), task="keywords_text", rows=6) == 0
    rows = [json.loads(line) for line in Path("synthetic/items/rows.jsonl").read_text().splitlines()]
    assert len(rows) == 6
    assert all(len(row["keywords"]) == 2 and all(word in row["document"] for word in row["keywords"]) for row in rows)


def test_a_passage_that_does_not_fit_is_a_rejection(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(monkeypatch, ScriptedLM(write_by_rule, n_ctx=20), give_up_after=2) == 2
    assert "None of 0 replies of scripted gave a row (prompt_too_long 6)" in capsys.readouterr().err
