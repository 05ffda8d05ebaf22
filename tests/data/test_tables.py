"""Parquet files and Hugging Face data sets, with the real libraries."""

import datetime
import logging
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pyarrow.parquet
import pytest
from pydantic import ValidationError

from promptopt.config.data import DataConfig
from promptopt.data.loaders import load_rows
from promptopt.data.readers import source_files, source_for
from promptopt.errors import DataError

ROWS: list[dict[str, Any]] = [
    {
        "question": f"question {n}",
        "answers": [f"a{n}", "b"],
        "meta": {"title": "日本"},
        "when": datetime.date(2026, 1, n),
    }
    for n in range(1, 6)
]
FIELDS = {"question": "question", "answer": "answers.0", "title": "meta.title", "when": "when"}


def make_config(source: dict[str, Any], **changes: Any) -> DataConfig:
    values = {"source": source, "fields": FIELDS, "inputs": ["question"], "split": {"train": 1, "val": 1, "test": 1}}
    return DataConfig.model_validate({**values, **changes})


@pytest.fixture(autouse=True)
def quiet() -> None:
    datasets.disable_progress_bars()


def write_parquet(folder: Path, rows: list[dict[str, Any]]) -> Path:
    path = folder / "rows.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def test_parquet(tmp_path: Path) -> None:
    path = write_parquet(tmp_path, ROWS)
    rows = load_rows(make_config({"kind": "parquet", "path": str(path)})).rows
    assert len(rows) == 5
    assert rows[1].fields == {"question": "question 2", "answer": "a2", "title": "日本", "when": "2026-01-02"}


def test_bad_rows_of_parquet_are_named(tmp_path: Path) -> None:
    rows = [*ROWS, {**ROWS[0], "question": "x", "answers": []}]
    source = {"kind": "parquet", "path": str(write_parquet(tmp_path, rows))}
    with pytest.raises(DataError, match=r"rows\.parquet, row 6: column 'answers\.0' \(for field 'answer'\)"):
        load_rows(make_config(source))
    assert load_rows(make_config(source, bad_rows_allowed=1)).bad_rows == 1
    binary = {"kind": "parquet", "path": str(write_parquet(tmp_path, [{**ROWS[0], "question": b"\xff"}]))}
    with pytest.raises(DataError, match=r"row 1: a value of field 'question' cannot be written as JSON"):
        load_rows(make_config(binary))


@pytest.mark.parametrize("damage", ["no parquet", "cut", "changed", "empty"])
def test_damaged_parquet(tmp_path: Path, damage: str) -> None:
    path = write_parquet(tmp_path, [] if damage == "empty" else ROWS)
    data = bytearray(path.read_bytes())
    if damage == "changed":
        data[4:200] = bytes(196)
    path.write_bytes({"no parquet": b"hello", "cut": bytes(data[:-20])}.get(damage, bytes(data)))
    with pytest.raises(DataError, match="is empty" if damage == "empty" else "cannot be read as Parquet"):
        load_rows(make_config({"kind": "parquet", "path": str(path)}))


def test_a_data_set_on_disk(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    # A selection: the rows are not those of the file, nor in its order.
    datasets.Dataset.from_list(ROWS).select([3, 1]).save_to_disk(str(folder))
    config = make_config({"kind": "huggingface", "path": str(folder)})
    assert [row.fields["question"] for row in load_rows(config).rows] == ["question 4", "question 2"]
    assert any(file.suffix == ".arrow" for file in source_files(config.source))
    assert source_for(folder).kind == "huggingface"


def test_a_data_set_with_splits(tmp_path: Path) -> None:
    folder = str(tmp_path / "set")
    whole = datasets.Dataset.from_list(ROWS)
    datasets.DatasetDict({"train": whole, "test": whole.select([0])}).save_to_disk(folder)
    assert len(load_rows(make_config({"kind": "huggingface", "path": folder, "split": "test"})).rows) == 1
    with pytest.raises(DataError, match=r"no `split`; choose one of \['test', 'train'\]"):
        load_rows(make_config({"kind": "huggingface", "path": folder}))
    with pytest.raises(DataError, match=r"split 'dev', which is not among \['test', 'train'\]"):
        load_rows(make_config({"kind": "huggingface", "path": folder, "split": "dev"}))


def test_no_data_set_on_disk(tmp_path: Path) -> None:
    (tmp_path / "dataset_info.json").write_text("{")
    with pytest.raises(DataError, match=r"cannot be read as a data set.*save_to_disk"):
        load_rows(make_config({"kind": "huggingface", "path": str(tmp_path)}))


def test_the_hub_out_of_reach_is_one_clear_error_without_the_token(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_averysecrettoken")
    with caplog.at_level(logging.DEBUG), pytest.raises(DataError, match="from the Hugging Face hub") as caught:
        load_rows(make_config({"kind": "huggingface", "name": "rajpurkar/squad", "split": "train"}))
    printed = capfd.readouterr()
    everything = f"{caught.value}{printed.out}{printed.err}{caplog.text}"
    assert "'rajpurkar/squad'" in everything
    assert "averysecret" not in everything


def test_the_token_comes_from_the_environment_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    def load_dataset(*arguments: Any, **options: Any) -> Any:
        asked.append({"arguments": arguments, **options})
        raise ConnectionError(f"no route, token {options['token']}")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    source = {"kind": "huggingface", "name": "a/b", "config": "c", "split": "train[:5]", "revision": "abc"}
    for token in (None, "hf_secret"):
        monkeypatch.delenv("HF_TOKEN", raising=False)
        if token:
            monkeypatch.setenv("HF_TOKEN", token)
        with pytest.raises(DataError) as caught:
            load_rows(make_config(source))
        assert "hf_secret" not in str(caught.value)
    expected = {"arguments": ("a/b", "c"), "split": "train[:5]", "revision": "abc"}
    assert asked == [{**expected, "token": False}, {**expected, "token": "hf_secret"}]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({}, "either `path`"),
        ({"path": "a", "name": "b"}, "either `path`"),
        ({"path": "a", "revision": "b"}, "belong to `name`"),
        ({"name": "../../etc"}, "String should match pattern"),
    ],
)
def test_wrong_hugging_face_sources(source: dict[str, str], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        make_config({"kind": "huggingface", **source})
