"""Loading rows: mapping, identity, and every way in which a file can be wrong."""

import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from promptopt.config.data import DataConfig
from promptopt.data.loaders import load_rows, row_id
from promptopt.errors import ConfigError, DataError

FIELDS = {"question": "question", "answer": "answers.0"}


def make_config(path: object = "rows.jsonl", **changes: Any) -> DataConfig:
    kind = "csv" if str(path).endswith(".csv") else "jsonl"
    values: dict[str, Any] = {
        "source": {"kind": kind, "path": str(path)},
        "fields": FIELDS,
        "inputs": ["question"],
        "split": {"train": 1, "val": 1, "test": 1},
    }
    return DataConfig.model_validate({**values, **changes})


def write_rows(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def row(question: str = "q", answer: str = "a") -> dict[str, Any]:
    return {"question": question, "answers": [answer], "title": "t"}


def make_rows(n: int, seed: int) -> list[dict[str, Any]]:
    return [row(f"question {seed} {number}") for number in range(n)]


def make_odd_rows(n: int, seed: int) -> list[object]:
    return [row("good"), {"question": object(), "answers": ["a"]}, {"question": float("nan"), "answers": ["a"]}, "text"]


def make_nothing(n: int, seed: int) -> list[object]:
    return []


def test_columns_become_fields(tmp_path: Path) -> None:
    loaded = load_rows(make_config(write_rows(tmp_path / "rows.jsonl", row("one"), row("two")), group="title"))
    assert [one.fields for one in loaded.rows] == [
        {"question": "one", "answer": "a"},
        {"question": "two", "answer": "a"},
    ]
    assert loaded.rows[0].id == row_id({"question": "one"})
    assert {one.group for one in loaded.rows} == {"t"}
    assert (loaded.test_rows, loaded.bad_rows, loaded.duplicates) == (None, 0, 0)


def test_a_column_with_a_dot_in_its_name_wins(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl", {**row(), "answers.0": "flat"})
    assert load_rows(make_config(path)).rows[0].fields["answer"] == "flat"


def test_csv_with_mark_quotes_and_long_field(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b'\xef\xbb\xbfquestion,answer\r\n"a, ""b""\r\nc",x\r\n' + b"z" * 200_000 + b",y\r\n\r\n")
    loaded = load_rows(make_config(path, fields={"question": "question", "answer": "answer"}))
    assert loaded.rows[0].fields == {"question": 'a, "b"\r\nc', "answer": "x"}
    assert len(str(loaded.rows[1].fields["question"])) == 200_000


def test_unicode_line_separators_do_not_end_a_line(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl", row("one\u2028two\x85three\x0cfour"))
    assert load_rows(make_config(path)).rows[0].fields["question"] == "one\u2028two\x85three\x0cfour"


def test_duplicates_are_dropped_and_counted(tmp_path: Path) -> None:
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    path = write_rows(tmp_path / "rows.jsonl", row(composed, "first"), row(decomposed, "second"), row("other"))
    loaded = load_rows(make_config(path))
    assert [one.fields["answer"] for one in loaded.rows] == ["first", "a"]
    assert loaded.duplicates == 1


def test_separate_test_source(tmp_path: Path) -> None:
    config = make_config(
        write_rows(tmp_path / "rows.jsonl", row("one")),
        test_source={"kind": "jsonl", "path": str(write_rows(tmp_path / "test.jsonl", row("one"), row("two")))},
    )
    loaded = load_rows(config)
    assert loaded.test_rows is not None
    assert [len(loaded.rows), len(loaded.test_rows)] == [1, 2]


def test_places_that_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work, data, shared = tmp_path / "work", tmp_path / "data", tmp_path / "shared" / "data"
    for folder in (work, data, shared):
        folder.mkdir(parents=True)
    monkeypatch.chdir(work)
    monkeypatch.setenv("PROMPTOPT_DATA", str(data))
    with pytest.raises(DataError) as caught:
        load_rows(make_config("rows.jsonl", origin="https://example.org/data"))
    message = str(caught.value)
    for folder in (work, data, work.parent / "shared" / "data"):
        assert str(folder / "rows.jsonl") in message
    assert "PROMPTOPT_DATA" in message
    assert "https://example.org/data" in message
    for folder in (shared, data, work):  # each later one goes before the earlier ones
        write_rows(folder / "rows.jsonl", row(folder.name))
        assert load_rows(make_config("rows.jsonl")).rows[0].fields["question"] == folder.name


def test_absolute_path_is_looked_at_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PROMPTOPT_DATA", raising=False)
    with pytest.raises(DataError, match="is not set") as caught:
        load_rows(make_config(tmp_path / "none.jsonl"))
    assert "shared" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.jsonl", b"", "is empty"),
        ("rows.jsonl", b"\n \n", "is empty"),
        (
            "rows.jsonl",
            b'{"question": "a", "answers": ["x"]}\n{"question": "\xff"}\n',
            "line 2: byte 0xff is not UTF-8",
        ),
        ("rows.jsonl", b'{"question": "a", "answers": ["x"]}\n\n{oops\n', "line 3: not JSON"),
        ("rows.jsonl", b'[{"question": "a"}]\n', "line 1: a JSON list where one object per line is needed"),
        ("rows.jsonl", b"[\n", "one JSON object per line"),
        ("rows.jsonl", b'{"question": NaN, "answers": ["x"]}\n', "NaN is not a JSON value"),
        ("rows.jsonl", b'{"question": "\\ud800", "answers": ["x"]}\n', "surrogate"),
        ("rows.jsonl", b'{"question": "a", "answers": []}\n', r"line 1: column 'answers.0' \(for field 'answer'\)"),
        ("rows.jsonl", b'{"answers": ["x"]}\n', "line 1: column 'question'.*the row has \\['answers'\\]"),
        ("rows.csv", b"question,answers\na\n", "line 2: 1 cells where the header has 2"),
        ("rows.csv", b"question,question\na,b\n", "twice"),
        ("rows.csv", b'question,answers\n"a,b\n', "line 2: not CSV"),
        ("rows.csv", b"question,answers\n", "no row that can be used"),
    ],
)
def test_wrong_files(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        load_rows(make_config(path))
    assert str(path) in str(caught.value)


def test_folder_instead_of_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        load_rows(make_config(tmp_path))


def test_bad_rows_are_counted_where_allowed(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl", row(), *[{"question": str(number)} for number in range(7)])
    with pytest.raises(DataError, match=r"7 bad row\(s\), 6 allowed(.|\n)*line 2(.|\n)*and 2 more"):
        load_rows(make_config(path, bad_rows_allowed=6))
    loaded = load_rows(make_config(path, bad_rows_allowed=7))
    assert (len(loaded.rows), loaded.bad_rows) == (1, 7)


def factory(name: str, n: int = 3) -> dict[str, Any]:
    return {"source": {"kind": "python", "factory": f"{__name__}:{name}", "n": n, "seed": 5}}


def test_python_factory() -> None:
    loaded = load_rows(make_config(**factory("make_rows")))
    assert [one.fields["question"] for one in loaded.rows] == ["question 5 0", "question 5 1", "question 5 2"]


def test_python_factory_with_values_that_json_cannot_say() -> None:
    loaded = load_rows(make_config(**factory("make_odd_rows"), bad_rows_allowed=3))
    assert (len(loaded.rows), loaded.bad_rows) == (1, 3)
    with pytest.raises(DataError, match="row 2: a value of field 'question' cannot be written as JSON"):
        load_rows(make_config(**factory("make_odd_rows")))


def test_wrong_factories() -> None:
    with pytest.raises(DataError, match="returned no rows"):
        load_rows(make_config(**factory("make_nothing")))
    with pytest.raises(ConfigError, match="must be a function"):
        load_rows(make_config(**factory("FIELDS")))
    with pytest.raises(ConfigError, match="has no 'absent'"):
        load_rows(make_config(**factory("absent")))


SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8)
)
JSON_VALUES = (
    SCALARS
    | st.lists(SCALARS, max_size=3)
    | st.dictionaries(st.text(max_size=3), st.lists(SCALARS, max_size=2), max_size=2)
)
JSON_ROWS = st.fixed_dictionaries({"question": JSON_VALUES, "answers": st.lists(JSON_VALUES, min_size=1, max_size=2)})


@given(st.lists(JSON_ROWS, min_size=1, max_size=4))
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=50, deadline=None
)
def test_any_json_survives_loading(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    path = write_rows(tmp_path / "rows.jsonl", *rows)
    loaded = load_rows(make_config(path))
    assert len(loaded.rows) + loaded.duplicates == len(rows)
    kept = {one.id: one.fields for one in loaded.rows}
    assert len(kept) == len(loaded.rows)
    for raw in rows:
        assert row_id({"question": raw["question"]}) in kept
    assert load_rows(make_config(path)) == loaded


@given(st.dictionaries(st.text(), st.text()))
@settings(deadline=None)
def test_row_id_ignores_order_and_unicode_form(inputs: dict[str, str]) -> None:
    turned = {unicodedata.normalize("NFD", key): unicodedata.normalize("NFD", inputs[key]) for key in reversed(inputs)}
    if len({unicodedata.normalize("NFC", key) for key in inputs}) == len(inputs) == len(turned):
        assert row_id(dict(inputs)) == row_id(dict(turned))
    assert len(row_id(dict(inputs))) == 16
