"""Diverse and typical demo sets: what they cover, that they are reproducible, and which rows are left out."""

import random
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptopt.pools.coverage import LARGEST, central_first, farthest_first, input_vectors, sampled
from promptopt.pools.demos import diverse_demo_sets, typical_demo_sets
from promptopt.pools.pool import DemoSet
from promptopt.records import DataRow

INPUTS, OUTPUTS = ["question"], ["answer"]
TOPICS = {
    "weather": "Will it rain in the mountains on day {n} of the holiday?",
    "money": "How many euros does invoice {n} of the supplier amount to?",
    "medicine": "Which doctor prescribed tablets for patient {n} yesterday?",
}
ROWS = [
    DataRow(id=f"{topic}{n}", fields={"question": text.format(n=n), "answer": topic})
    for topic, text in TOPICS.items()
    for n in range(10, 22)
]
Kind = Callable[..., tuple[DemoSet, ...]]
KINDS = pytest.mark.parametrize("kind", [diverse_demo_sets, typical_demo_sets])


def row(key: str, question: object, answer: object = "a") -> DataRow:
    return DataRow.model_validate({"id": key, "fields": {"question": question, "answer": answer}})


def test_the_diverse_set_has_a_demo_of_every_topic() -> None:
    for seed in range(5):
        sets = diverse_demo_sets(ROWS, INPUTS, OUTPUTS, n_sets=1, largest=3, seed=seed)
        assert {demo["answer"] for demo in sets[0]} == set(TOPICS)


def test_typical_demos_come_from_the_topic_of_most_rows() -> None:
    rows = [row for row in ROWS if row.id not in {f"money{n}" for n in range(12, 22)}]
    rows = [row for row in rows if not row.id.startswith("medicine") or row.id == "medicine10"]
    sets = typical_demo_sets(rows, INPUTS, OUTPUTS, n_sets=3, largest=3, seed=0)
    assert [len(demos) for demos in sets] == [1, 2, 3]
    assert {demo["answer"] for demos in sets for demo in demos} == {"weather"}


@KINDS
def test_sets_depend_on_the_seed_and_not_on_the_order_of_the_rows(kind: Kind) -> None:
    sets = kind(ROWS, INPUTS, OUTPUTS, 6, 3, 1)
    assert sets == kind(random.Random(0).sample(ROWS, len(ROWS)), INPUTS, OUTPUTS, 6, 3, 1)
    assert sets != kind(ROWS, INPUTS, OUTPUTS, 6, 3, 2)
    assert len(sets) == 6
    assert len({frozenset(demo["question"] for demo in demos) for demos in sets}) == 6
    # Asking for more sets changes none of the first ones.
    assert kind(ROWS, INPUTS, OUTPUTS, 3, 3, 1) == sets[:3]


@KINDS
@settings(max_examples=60, deadline=None)
@given(
    texts=st.lists(st.text(max_size=12), max_size=12),
    n_sets=st.integers(0, 5),
    largest=st.integers(1, 4),
    seed=st.integers(0, 3),
)
def test_any_rows_give_sound_sets(kind: Kind, texts: list[str], n_sets: int, largest: int, seed: int) -> None:
    rows = [row(f"{number:02}", text, f"a{number}") for number, text in enumerate(texts)]
    sets = kind(rows, INPUTS, OUTPUTS, n_sets, largest, seed)
    assert len(sets) <= n_sets
    assert bool(sets) == bool(n_sets and any(texts))
    for demos in sets:
        answers = [demo["answer"] for demo in demos]
        assert 1 <= len(demos) <= largest
        assert len(set(answers)) == len(answers)
        assert all(list(demo) == ["question", "answer"] and demo["question"] for demo in demos)


@KINDS
def test_long_rows_and_rows_without_an_answer_are_never_shown(kind: Kind) -> None:
    rows = [*ROWS, row("long", "long " * 100, "long"), row("open", "Will it rain?", None), row("empty", "", "empty")]
    shown = {demo["answer"] for demos in kind(rows, INPUTS, OUTPUTS, 30, 3, 0) for demo in demos}
    assert shown <= set(TOPICS)


def test_a_set_of_one_does_not_exist_among_diverse_sets_unless_asked_for() -> None:
    assert [len(demos) for demos in diverse_demo_sets(ROWS, INPUTS, OUTPUTS, 4, 3, 0)] == [3, 2, 3, 2]
    assert [len(demos) for demos in diverse_demo_sets(ROWS, INPUTS, OUTPUTS, 2, 1, 0)] == [1, 1]


def test_likeness_counts_every_field_the_same() -> None:
    page = "the same long page of context about ships and harbours " * 20
    rows = [
        DataRow(id="1", fields={"page": page, "question": "Who built the ship?"}),
        DataRow(id="2", fields={"page": page, "question": "Where is gold found?"}),
        DataRow(id="3", fields={"page": page, "question": "Who built the ships?"}),
    ]
    vectors = input_vectors(rows, ["page", "question"])
    assert vectors[0] @ vectors[2] > vectors[0] @ vectors[1] + 0.2
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1)


def test_likeness_reads_scripts_without_blanks_and_values_that_are_no_text() -> None:
    rows = [row("1", "明日の天気は雨ですか"), row("2", "昨日の天気は雨でしたか"), row("3", "請求書の合計金額を教えて")]
    vectors = input_vectors(rows, INPUTS)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2]
    mixed = input_vectors([row("1", [1, 2, 3]), row("2", [1, 2, 3]), row("3", None)], INPUTS)
    assert mixed[0] @ mixed[1] == pytest.approx(1)
    assert not mixed[2].any()


def test_covering_starts_in_the_middle_and_leaves_outliers_out() -> None:
    rows = [*ROWS, row("zzz", "§§§ %%% &&& ###")]
    vectors = input_vectors(rows, INPUTS)
    chosen = farthest_first(vectors, 3)
    assert chosen[0] == central_first(vectors)[0]
    assert len(rows) - 1 not in chosen
    assert central_first(vectors)[-1] == len(rows) - 1
    # Whoever asks for all of them gets them.
    assert sorted(farthest_first(vectors, len(rows))) == list(range(len(rows)))


def test_of_very_many_rows_a_sample_is_compared() -> None:
    rows = [row(f"{number:05}", "q") for number in range(LARGEST + 50)]
    assert len(sampled(rows, 0)) == LARGEST
    assert sampled(rows, 0) == sampled(rows[::-1], 0)
    assert sampled(rows, 0) != sampled(rows, 1)
