"""Pools: what index 0 is, and that they are the same every time."""

import dspy

from programs.document_qa import answer_from_document
from promptopt.config.experiment import SearchConfig
from promptopt.layout.spec import Layout
from promptopt.pools.build import build_pools
from promptopt.pools.demos import labelled_demo_sets
from promptopt.records import DataRow

ROWS = [
    DataRow(
        id=f"{number:02}", fields={"document": "d" * (number + 1), "question": f"q{number}", "answer": f"a{number}"}
    )
    for number in range(20)
]
FIELDS = ("document", "question", "answer")


def test_demo_sets_are_reproducible_different_and_of_growing_size() -> None:
    sets = labelled_demo_sets(ROWS, FIELDS, n_sets=4, largest=2, seed=1)
    assert sets == labelled_demo_sets(ROWS, FIELDS, n_sets=4, largest=2, seed=1)
    assert sets != labelled_demo_sets(ROWS, FIELDS, n_sets=4, largest=2, seed=2)
    assert [len(demos) for demos in sets] == [1, 2, 1, 2]
    assert all(set(demo) == set(FIELDS) for demos in sets for demo in demos)


def test_the_longest_quarter_is_never_a_demo() -> None:
    sets = labelled_demo_sets(ROWS, FIELDS, n_sets=50, largest=3, seed=0)
    assert max(len(str(demo["document"])) for demos in sets for demo in demos) <= 15


def test_rows_without_an_answer_are_never_a_demo() -> None:
    rows = [row if number % 2 else row.model_copy(update={"fields": {**row.fields, "answer": None}})
            for number, row in enumerate(ROWS)]  # fmt: skip
    sets = labelled_demo_sets(rows, FIELDS, n_sets=10, largest=2, seed=0)
    assert all(demo["answer"] for demos in sets for demo in demos)


def test_index_zero_is_the_untouched_program() -> None:
    config = SearchConfig(instructions=("Answer the question from the document.", "Another way to say it."))
    pools = build_pools(answer_from_document(), config, ROWS, seed=0)
    untouched = pools.candidate(Layout(), {"self": 0}, {"self": 0})
    assert untouched.predictors["self"].instructions == "Answer the question from the document."
    assert untouched.predictors["self"].demos == ()
    # The variant that repeats the program's own instructions is not a second choice.
    assert pools.predictors["self"].instructions == (
        "Answer the question from the document.",
        "Another way to say it.",
    )


class _Chain(dspy.Module):
    def __init__(self) -> None:
        self.first = dspy.Predict("document -> summary")
        self.second = dspy.Predict("summary, question -> answer")


def test_inner_predictors_of_a_chain_have_no_labelled_demos() -> None:
    pools = build_pools(_Chain(), SearchConfig(instructions=("Be brief.",)), ROWS, seed=0)
    assert set(pools.predictors) == {"first", "second"}
    assert all(pool.demo_sets == ((),) for pool in pools.predictors.values())
    assert all(len(pool.instructions) == 2 for pool in pools.predictors.values())
