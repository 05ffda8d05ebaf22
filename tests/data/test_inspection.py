"""What inspection says of data whose properties are known."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from promptopt.config.data import DataConfig, JsonlSource
from promptopt.data.field_statistics import describe_field, quantiles
from promptopt.data.inspection import inspect_data, inspect_source
from promptopt.data.readers import source_for
from promptopt.errors import DataError
from tests.data_folder import read_jsonl_file

CHANCE = random.Random(0)


def passage() -> str:
    return " ".join(CHANCE.choices([f"term{number}" for number in range(300)], k=80))


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def make_config(path: Path, **changes: Any) -> DataConfig:
    values: dict[str, Any] = {
        "source": {"kind": "jsonl", "path": str(path)},
        "fields": {"document": "document", "question": "question", "label": "label"},
        "inputs": ["document", "question"],
        "split": {"train": 60, "val": 20, "test": 20},
    }
    return DataConfig.model_validate({**values, **changes})


def five_questions_each(documents: int) -> list[dict[str, str]]:
    return [
        {"document": text, "question": f"what about number {n}?", "label": "yes" if n else "no"}
        for text in [passage() for _ in range(documents)]
        for n in range(5)
    ]


def test_documents_on_both_sides_of_a_cut_are_leaks_until_they_are_a_group(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", five_questions_each(24))
    found = inspect_data(make_config(path))
    assert found.rows == 120
    assert found.splits is not None
    assert found.splits.near_duplicates["train ~ test"] > 10
    assert found.splits.examples[0].first.startswith(f"{path}, line ")
    assert {(one.field, one.split, one.other) for one in found.splits.shared} >= {("document", "train", "test")}
    grouped = inspect_data(make_config(path, group="document"))
    assert grouped.splits is not None
    assert (grouped.splits.near_duplicates, grouped.splits.shared) == ({}, ())
    assert grouped.groups is not None
    assert (grouped.groups.count, grouped.groups.largest, grouped.groups.median_rows) == (24, 5, 5.0)


def test_bad_rows_duplicates_and_near_duplicates_are_counted(tmp_path: Path) -> None:
    rows: list[Any] = five_questions_each(24)
    rows += [rows[0], {**rows[0], "question": "What about NUMBER 0"}, {"document": "x"}, [1]]
    found = inspect_data(make_config(write(tmp_path / "rows.jsonl", rows)))
    assert (found.rows, found.bad_rows, found.duplicates) == (121, 2, 1)
    assert found.near_duplicates == 24 * 4 + 1  # four questions on a document already seen, and one spelt otherwise
    assert "line 123" in found.problems[0]
    assert found.near_duplicate_examples[0].similarity > 0.8


def test_what_cannot_be_split_is_said(tmp_path: Path) -> None:
    found = inspect_data(make_config(write(tmp_path / "rows.jsonl", five_questions_each(1)), group="document"))
    assert found.splits is None
    assert "A split would be empty" in found.split_problem


def test_a_file_without_a_config(tmp_path: Path) -> None:
    rows = [{"text": "これは日本語です。", "n": n, "tags": ["a"], "kind": "x" if n % 3 else "y"} for n in range(9)]
    rows += [{"text": "This is English.", "n": 10, "kind": None}, {"text": "", "n": 2.5, "extra": {"a": 1}}]
    found = inspect_source(
        source_for(write(tmp_path / "rows.jsonl", rows)), count_tokens=lambda texts: [7] * len(texts)
    )
    fields = {field.name: field for field in found.fields}
    assert list(fields) == ["text", "n", "tags", "kind", "extra"]
    assert found.splits is None
    assert fields["text"].types == {"text": 11}
    assert (fields["text"].missing, fields["text"].empty, fields["text"].distinct) == (0, 1, 3)
    assert fields["text"].characters is not None
    assert (fields["text"].characters.minimum, fields["text"].characters.maximum) == (0, 16)
    assert fields["text"].tokens is not None
    assert fields["text"].tokens.median == 7
    assert fields["n"].types == {"number": 11}
    assert fields["tags"].missing == 2
    assert (fields["kind"].missing, fields["kind"].labels) == (2, {"x": 6, "y": 3})
    assert fields["extra"].types == {"mapping": 1}


def test_a_folder_of_documents(tmp_path: Path) -> None:
    text = passage()
    (tmp_path / "a.txt").write_text(text)
    (tmp_path / "b.md").write_text(text + " more")
    (tmp_path / "c.txt").write_bytes(b"\0")
    found = inspect_source(source_for(tmp_path))
    assert (found.rows, found.bad_rows, found.near_duplicates) == (2, 1, 1)


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no format that is known by its suffix \(\.jsonl, \.csv, \.parquet, \.txt"):
        source_for(tmp_path / "rows.xlsx")
    bad = tmp_path / "bad.jsonl"
    bad.write_text("{oops\n")
    with pytest.raises(DataError, match=r"no row that can be used\. The first problem: .*line 1: not JSON"):
        inspect_source(JsonlSource(kind="jsonl", path=str(bad)))


def test_quantiles_are_values_of_the_data() -> None:
    found = quantiles(list(range(1, 101)))
    assert found is not None
    assert (found.minimum, found.p10, found.median, found.p90, found.p99, found.maximum) == (1, 10, 50, 90, 99, 100)
    assert found.mean == 50.5
    assert quantiles([]) is None


def test_types_and_labels_of_a_field() -> None:
    found = describe_field("f", [True, 1, 1.5, "a", "a", [1], {}, None])
    assert found.types == {"number": 2, "text": 2, "true/false": 1, "list": 1, "mapping": 1}
    assert (found.missing, found.empty, found.distinct) == (1, 1, 6)
    assert found.labels == {"a": 2}
    assert describe_field("f", ["a", "b", "c"]).labels == {}
    assert describe_field("f", ["x" * 61] * 9).labels == {}


def test_the_intents_of_banking77_are_seen_as_labels() -> None:
    rows = read_jsonl_file("cls_banking77/train_30_per_class.jsonl")
    category = describe_field("category", [row["category"] for row in rows])
    assert category.distinct == 77
    assert set(category.labels.values()) == {30}
