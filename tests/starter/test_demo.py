"""The demo's data: deterministic, apart between seeds, of the promised size, and not solved by copying alone."""

import generate
import lexicon


def test_same_seed_same_rows() -> None:
    assert generate.generate(20, 1) == generate.generate(20, 1)


def test_other_seed_other_documents() -> None:
    first = {row["document"] for row in generate.generate(200, 1)}
    second = {row["document"] for row in generate.generate(200, 2)}
    assert len(first) == len(second) == 200
    assert not first & second


def test_rows_have_the_promised_size() -> None:
    for row in generate.generate(200, 3):
        assert set(row) == {"document", "question", "answer"}
        assert 35 <= len(row["document"].split()) <= 90
        assert row["document"].count(". ") + 1 == 7
        assert 1 <= len(row["answer"].split()) <= 3


def test_most_answers_are_copied_and_dates_are_rewritten() -> None:
    rows = generate.generate(300, 4)
    copied = sum(row["answer"] in row["document"] for row in rows) / len(rows)
    assert 0.75 < copied < 1


def test_people_of_the_demo_are_not_those_of_the_training_corpus() -> None:
    assert not set(generate.GIVEN) & set(lexicon.FIRST_NAMES)
