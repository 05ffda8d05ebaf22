"""Case files of Flow Benchmark Tools: read, written as they were, and as rows."""

import json
from pathlib import Path
from typing import Any

import pytest

from promptopt.config.data import DataConfig
from promptopt.data.flow_cases import FlowCase, read_cases, write_cases
from promptopt.data.loaders import load_rows
from promptopt.data.readers import source_files
from promptopt.errors import DataError

# The forms of the case files in the tools' own repository (rag_benchmark.jsonl, criteria_benchmark.jsonl).
CASES: list[dict[str, Any]] = [
    {
        "labels": ["rag", "pdf"],
        "extras": {"documents": ["rhino.pdf"], "pages": {"from": 1}},
        "query": "Is rhino horn an aphrodisiac?",
        "reference_answer": "No. これは誤解です。",
    },
    {"query": "What does the report say?", "reference_answer_file": "answers/report.txt"},
    {"labels": ["criteria"], "query": "How many?", "extras": {"criteria": "Clarity: worded clearly."}},
    {"query": "Anything else?", "reference_answer": "", "labels": None, "weight": 2},
]


def write_file(folder: Path, *cases: object) -> Path:
    (folder / "answers").mkdir(exist_ok=True)
    (folder / "answers" / "report.txt").write_text("It says: yes.\n", encoding="utf-8")
    path = folder / "cases.jsonl"
    path.write_text("".join(json.dumps(case) + "\n" for case in cases), encoding="utf-8")
    return path


def make_config(path: Path, **changes: Any) -> DataConfig:
    values: dict[str, Any] = {
        "source": {"kind": "flow_cases", "path": str(path)},
        "fields": {"question": "query", "answer": "reference_answer", "documents": "extras"},
        "inputs": ["question"],
        "split": {"train": 1, "val": 1, "test": 1},
    }
    return DataConfig.model_validate({**values, **changes})


def test_what_was_read_is_written_as_it_was(tmp_path: Path) -> None:
    cases = read_cases(write_file(tmp_path, *CASES))
    assert cases[0].labels == ("rag", "pdf")
    copy = tmp_path / "copy.jsonl"
    write_cases(copy, cases)
    assert [json.loads(line) for line in copy.read_text(encoding="utf-8").splitlines()] == CASES
    assert read_cases(copy) == cases


def test_reference_answers_come_from_files_beside_the_case_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_file(tmp_path, *CASES)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    answers = [case.answer(tmp_path) for case in read_cases(path)]
    assert answers == ["No. これは誤解です。", "It says: yes.\n", None, ""]


def test_cases_as_rows(tmp_path: Path) -> None:
    path = write_file(tmp_path, *CASES)
    rows = load_rows(make_config(path)).rows
    assert rows[1].fields == {"question": "What does the report say?", "answer": "It says: yes.\n", "documents": {}}
    assert rows[2].fields["answer"] is None
    deep = load_rows(
        make_config(write_file(tmp_path, CASES[0]), fields={"question": "query", "d": "extras.documents.0"})
    )
    assert deep.rows[0].fields["d"] == "rhino.pdf"


def test_reference_files_decide_what_the_rows_are(tmp_path: Path) -> None:
    path = write_file(tmp_path, *CASES)
    assert source_files(make_config(path).source) == [path, tmp_path / "answers" / "report.txt"]


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ({"query": "q"}, "needs reference_answer or reference_answer_file"),
        ({"reference_answer": "a"}, "field 'query': Field required"),
        ({"query": "q", "reference_answer": 7}, "field 'reference_answer': Input should be a valid string"),
        ({"query": "q", "reference_answer": "a", "labels": "rag"}, "field 'labels'"),
        ({"query": "q", "reference_answer_file": "absent.txt"}, "field 'reference_answer_file'.*absent.txt does not"),
        ({"query": "q", "reference_answer_file": "../secret.txt"}, "field 'reference_answer_file'.*leads out of"),
        ({"query": "q", "reference_answer_file": "/etc/hostname"}, "leads out of"),
        (["query"], "a JSON list where one object per line is needed"),
    ],
)
def test_a_wrong_case_is_named_by_file_line_and_field(tmp_path: Path, case: object, message: str) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "in").mkdir()
    path = write_file(tmp_path / "in", CASES[0], case)
    with pytest.raises(DataError, match=rf"cases\.jsonl, line 2: .*{message}"):
        load_rows(make_config(path))
    loaded = load_rows(make_config(path, bad_rows_allowed=1))
    assert (len(loaded.rows), loaded.bad_rows) == (1, 1)


def test_reading_stops_at_a_wrong_case(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="line 2: needs reference_answer"):
        read_cases(write_file(tmp_path, CASES[0], {"query": "q"}))
    (tmp_path / "none.jsonl").write_text("\n")
    with pytest.raises(DataError, match="is empty"):
        read_cases(tmp_path / "none.jsonl")


def test_a_case_of_ones_own(tmp_path: Path) -> None:
    write_cases(tmp_path / "own.jsonl", [FlowCase(query="日本?", reference_answer="はい", labels=("ja",))])
    text = (tmp_path / "own.jsonl").read_text(encoding="utf-8")
    assert text == '{"query":"日本?","reference_answer":"はい","labels":["ja"]}\n'
