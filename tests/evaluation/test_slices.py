"""Slices: each built-in label on rows made for it, and the table they lead to."""

import pytest

from promptopt.errors import ConfigError
from promptopt.evaluation.slices import slice_labels, slice_tables
from promptopt.records import DataRow, ExampleRecord, Outcome

INPUTS = ("document", "question")
TOWER = "東京タワーは1958年に完成した。高さは333メートルである。"
FILLER = "Nothing of note happened that year in the town. " * 3


def row(key: str, document: str, question: str, **more: object) -> DataRow:
    return DataRow.model_validate({"id": key, "fields": {"document": document, "question": question, **more}})


ROWS = (
    row("a", "The tower is 300 m high. " + FILLER, "How many metres high is it?", answers=["300 m"], kind="number"),
    row("b", FILLER + "The mayor is Ann. " + FILLER, "Who is the mayor?", answers=["Ann"], kind="name"),
    row("c", FILLER + FILLER + "It closed in 1990.", "When, and why, did it close?", answer="1990", kind="number"),
    row("d", FILLER, "Is it open?", answers=["yes, daily"], kind="other"),
    row(
        "e",
        "東京タワーは1958年に完成した。高さは333メートルである。" * 2,
        "いつ完成したか。",
        answers=["1958年"],
        kind="number",
    ),
)


def test_rows_are_labelled_by_language_place_question_and_field() -> None:
    labels = slice_labels(ROWS, INPUTS, ["kind"])
    assert labels["language"] == {"a": "latin", "b": "latin", "c": "latin", "d": "latin", "e": "ja"}
    assert labels["answer position"] == {
        "a": "1: first third", "b": "2: middle third", "c": "3: last third", "d": "not in the document",
        "e": "1: first third",
    }  # fmt: skip
    assert labels["question type"] == {"a": "how many", "b": "who", "c": "when", "d": "other", "e": "いつ"}
    assert labels["kind"]["b"] == "name"


def test_length_makes_thirds_and_one_valued_slices_are_left_out() -> None:
    rows = [row(str(n), "x" * n, "y") for n in range(1, 31)]
    labels = slice_labels(rows, INPUTS)
    sizes = [list(labels["length"].values()).count(label) for label in sorted(set(labels["length"].values()))]
    assert sizes == [10, 10, 10]
    assert set(labels) == {"length"}


def test_a_field_that_is_missing_is_named() -> None:
    with pytest.raises(ConfigError, match=r"field 'topic', which row a lacks.*data\.fields"):
        slice_labels(ROWS, INPUTS, ["topic"])


def record(key: str, score: float | None) -> ExampleRecord:
    outcome = Outcome.UNSCORED if score is None else Outcome.SCORED
    return ExampleRecord(example_id=key, outcome=outcome, score=score)


def test_the_table_compares_the_last_system_with_the_first_where_both_have_scores() -> None:
    labels = {"kind": {"a": "x", "b": "x", "c": "x", "d": "y"}}
    road = {
        "base": [record("a", 0.0), record("b", 0.5), record("c", None), record("d", 1.0)],
        "tuned": [record("a", 1.0), record("b", 0.5), record("c", 1.0), record("d", None)],
    }
    (table,) = slice_tables(labels, road, seed=0)
    x, y = table.lines
    assert (x.label, x.n, x.means["base"]) == ("x", 3, 0.25)
    assert x.means["tuned"] == pytest.approx(2.5 / 3)
    assert x.difference is not None
    assert (x.difference.n, x.difference.mean) == (2, 0.5)
    assert (y.means, y.difference) == ({"base": 1.0}, None)
