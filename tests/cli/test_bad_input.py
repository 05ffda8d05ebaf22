"""Bad input: one clear error, exit code 2, no traceback, nothing finished lost."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from promptopt.cli import main as cli

REPOSITORY = Path(__file__).parents[2]
ROWS = "".join(
    f'{{"document": "The code of item{n} is {n}{n}.", "question": "The code of item{n}?", "answer": "{n}{n}"}}\n'
    for n in range(60)
)
FIELDS = {"document": "document", "question": "question", "answer": "answer"}
EXPERIMENT: dict[str, object] = {
    "name": "bad",
    "program": "programs.document_qa:answer_from_document",
    "metric": "answer_f1",
    "model": {"kind": "starter"},
    "data": {
        "source": {"kind": "jsonl", "path": "rows.jsonl"},
        "fields": FIELDS,
        "inputs": ["document", "question"],
        "split": {"train": 20, "val": 10, "test": 10},
    },
    "lm": {"max_tokens": 8},
    "search": {"trials": 2, "demo_sets": 0, "layout": {"reminder": [True, False]}},
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").write_text(ROWS)
    return tmp_path


def _write(folder: Path, **changes: object) -> str:
    (folder / "experiment.yaml").write_text(yaml.safe_dump({**EXPERIMENT, **changes}))
    return str(folder / "experiment.yaml")


def _data(**changes: object) -> dict[str, object]:
    return {**EXPERIMENT["data"], **changes}  # type: ignore[dict-item]


def _fails(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert cli.main(list(arguments)) == 2
    message = capsys.readouterr().err
    assert "Traceback" not in message
    return message


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"metric": "anwser_f1"}, ["anwser_f1", "answer_f1"]),
        ({"metric": "viggo"}, ["viggo", "meaning_representation or meaning or mr", "data.fields"]),
        ({"serach": {}}, ["serach", "Did you mean 'search'"]),
        ({"program": "programs.document_qa:no_such"}, ["no_such", "answer_from_document"]),
        ({"program": "programs.no_such:x"}, ["programs.no_such"]),
        ({"data": _data(source={"kind": "jsonl", "path": "none.jsonl"}, origin="https://example.org/data")},
         ["none.jsonl", "PROMPTOPT_DATA", "https://example.org/data"]),
        ({"data": _data(fields={**FIELDS, "answer": "reply"})}, ["reply", "rows.jsonl"]),
        ({"data": _data(fields={**FIELDS, "text": "document"}, inputs=["text", "question"])}, ["text", "document"]),
        ({"program": "tests.cli.broken_programs:thinking"}, ["reasoning", "teacher: candidate"]),
        ({"program": "tests.cli.broken_programs:failing"}, ["tests.cli.broken_programs:failing", "ZeroDivisionError"]),
        ({"metric": "tests.cli.broken_programs:RAISING"}, ["raising", "KeyError", "row"]),
        ({"search": {"layout": {"query_fields": [["question"]]}}}, ["query_fields", "search.start"]),
        ({"model": {"kind": "local", "gguf": "none.gguf"}}, ["none.gguf", "promptopt models"]),
        ({"model": {"kind": "local", "hf_dir": "none"}}, ["none", "config.json"]),
        ({"model": {"kind": "local"}}, ["hf_dir", "gguf"]),
    ],
)  # fmt: skip
def test_a_wrong_experiment_says_what_and_what_to_do(
    folder: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, object], expected: list[str]
) -> None:
    message = _fails(capsys, "run", _write(folder, **changes))
    for text in expected:
        assert text in message


@pytest.mark.parametrize(
    ("content", "expected"),
    [(b"", "empty"), (b"\xff\xfe\x00x", "UTF-8"), (b'{"document": "d"', "rows.jsonl")],
)
def test_a_data_file_that_cannot_be_used(
    folder: Path, capsys: pytest.CaptureFixture[str], content: bytes, expected: str
) -> None:
    (folder / "rows.jsonl").write_bytes(content)
    assert expected in _fails(capsys, "run", _write(folder))


def test_a_truncated_gguf(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from promptopt.pipeline.models import starter_gguf

    whole = starter_gguf().read_bytes()
    (folder / "half.gguf").write_bytes(whole[: len(whole) // 2])
    message = _fails(capsys, "run", _write(folder, model={"kind": "local", "gguf": "half.gguf"}))
    assert "half.gguf" in message
    assert "incomplete" in message


def test_a_prompt_longer_than_the_context(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = _fails(capsys, "run", _write(folder, lm={"n_ctx": 64, "max_tokens": 8}))
    assert "64" in message
    assert "tokens" in message


def test_a_missing_stage_names_the_command_that_makes_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "promptopt search" in _fails(capsys, "distill", _write(folder))


def test_a_gguf_alone_is_not_trained(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "some.gguf").write_bytes(b"GGUF")
    message = _fails(capsys, "finetune", _write(folder, model={"kind": "local", "gguf": "some.gguf"}))
    assert "hf_dir" in message


def test_a_worker_needs_a_storage_that_can_be_opened(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = _write(folder)
    assert "A worker needs the study's storage: --storage" in _fails(capsys, "worker", path)
    nobody = "postgresql://me:secret@127.0.0.1:1/none"
    assert "Give --artifacts" in _fails(capsys, "worker", path, "--storage", nobody)
    message = _fails(capsys, "worker", path, "--storage", nobody, "--artifacts", str(folder / "shared"))
    assert "127.0.0.1:1/none cannot be opened" in message
    assert "secret" not in message


@pytest.mark.parametrize(
    ("search", "said"),
    [
        ({"weights": {"recipe": {"learning_rat": [1e-3]}}}, "weights.recipe.learning_rat is no recipe parameter"),
        ({"weights": {"recipe": {"rank": []}}}, "weights.recipe.rank has no values"),
        ({"weights": {"recipe": {"learning_rate": {"low": 1e-2, "high": 1e-1}}}}, "outside search.weights.recipe"),
        ({"fixed": {"layout.query": "after"}}, "search.fixed names 'layout.query'"),
        ({"constraints": {"prompt_tokens": 1}}, "No trial meets search.constraints"),
    ],
)
def test_a_bad_space_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], search: dict[str, object], said: str
) -> None:
    own: dict[str, object] = EXPERIMENT["search"]  # type: ignore[assignment]
    changed = {**own, **search} if "weights" in search else {**own, "weights": None, **search}
    # Written down: what an experiment leaves out is chosen to lie inside the range.
    start = {"learning_rate": 2e-4}
    assert said in _fails(capsys, "search", _write(folder, search=changed, finetune=start))


def test_validate_lists_every_problem_of_every_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = _write(folder)
    (folder / "wrong.yaml").write_text(yaml.safe_dump({**EXPERIMENT, "metric": "nope", "model": {"kind": "starter"}}))
    (folder / "worse.yaml").write_text(yaml.safe_dump({**EXPERIMENT, "nmae": "x", "seed": "many"}))
    assert cli.main(["validate", good, str(folder / "wrong.yaml"), str(folder / "worse.yaml")]) == 2
    shown = capsys.readouterr().out
    assert "nope" in shown
    assert "nmae" in shown
    assert "seed" in shown
    assert "3 file(s) checked, 2 with problems." in shown
    assert cli.main(["validate", good]) == 0


def test_a_full_disk_is_said_in_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object, **named: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "runs/bad/data/train.jsonl")

    monkeypatch.setattr("promptopt.pipeline.prepare.write_jsonl", full)
    message = _fails(capsys, "run", _write(folder))
    assert "disk is full" in message
    assert "kept" in message


def test_ctrl_c_stops_with_one_line_and_keeps_what_is_finished(folder: Path) -> None:
    path = _write(folder, search={"trials": 500, "demo_sets": 2, "layout": {"reminder": [True, False]}})
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    child = subprocess.Popen(
        [sys.executable, "-m", "promptopt.cli.main", "run", path],
        cwd=folder, env=environment, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    trials = folder / "runs" / "bad" / "search" / "trials.jsonl"
    deadline = time.monotonic() + 120
    while not trials.exists() and time.monotonic() < deadline and child.poll() is None:
        time.sleep(0.05)
    child.send_signal(signal.SIGINT)
    _, shown = child.communicate(timeout=60)
    assert child.returncode == 2
    assert "Traceback" not in shown
    assert "Ctrl-C" in shown
    assert trials.read_text().count("\n") >= 1


def test_samples_says_what_it_needs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "lie between 0 and 1" in _fails(capsys, "samples", "--difference", "5")
    missing = _fails(capsys, "samples", "--difference", "0.05", "--records", "a.jsonl", "b.jsonl")
    assert "There is no a.jsonl" in missing
    (folder / "a.jsonl").write_text('{"no": "record"}\n')
    assert "no file of evaluation records" in _fails(
        capsys, "samples", "--difference", "0.05", "--records", "a.jsonl", "a.jsonl"
    )
    assert cli.main(["samples", "--difference", "0.05"]) == 0
    assert "20%      622" in capsys.readouterr().out
