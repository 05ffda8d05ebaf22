"""Generations: old indices keep their meaning, keys notice every change, files of before still load."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from promptopt.errors import ConfigError
from promptopt.layout.spec import Layout
from promptopt.pools.pool import Pools, PredictorPool, Proposal

TEXTS = st.text(max_size=4)
DEMOS = st.lists(
    st.dictionaries(TEXTS, st.one_of(TEXTS, st.integers(), st.booleans(), st.none()), max_size=2), max_size=2
)


@st.composite
def pools(draw: st.DrawFn) -> Pools:
    predictors = {
        name: PredictorPool(
            instructions=tuple(draw(st.lists(TEXTS, min_size=1, max_size=3, unique=True))),
            demo_sets=((), *map(tuple, draw(st.lists(DEMOS, max_size=2)))),
        )
        for name in ("first", "second")
    }
    return Pools(predictors=predictors)


@given(pools(), st.lists(TEXTS, max_size=4), st.lists(DEMOS, max_size=3))
def test_an_extension_keeps_every_old_index_and_adds_nothing_twice(
    old: Pools, texts: list[str], sets: list[list[dict[str, Any]]]
) -> None:
    demo_sets = [tuple(demos) for demos in sets]
    new = old.extended({"first": texts}, {"second": demo_sets}, origin="test")
    for name, pool in old.predictors.items():
        for index in range(len(pool.instructions)):
            for demo_index in range(len(pool.demo_sets)):
                chosen = {"first": 0, "second": 0, name: index}, {"first": 0, "second": 0, name: demo_index}
                assert new.candidate(Layout(), *chosen) == old.candidate(Layout(), *chosen)
    first, second = new.predictors["first"], new.predictors["second"]
    assert set(first.instructions) == {*old.predictors["first"].instructions, *texts}
    assert len(set(first.instructions)) == len(first.instructions)
    added = second.demo_sets[len(old.predictors["second"].demo_sets) :]
    assert len({json.dumps(demos, sort_keys=True) for demos in added}) == len(added)
    assert () not in added
    assert all(demos in second.demo_sets for demos in demo_sets)
    assert new.continues(old)
    assert new.generation == (1 if len(first.instructions) + len(second.demo_sets) > sizes(old) else 0)


def sizes(of: Pools) -> int:
    return len(of.predictors["first"].instructions) + len(of.predictors["second"].demo_sets)


@given(pools(), pools())
def test_keys_are_equal_exactly_where_the_pools_are(one: Pools, other: Pools) -> None:
    assert (one.key() == other.key()) == (one.model_dump_json() == other.model_dump_json())
    assert Pools.model_validate_json(one.model_dump_json()).key() == one.key()


POOL = PredictorPool(instructions=("own",), demo_sets=((), ({"q": "1"},)))


@pytest.mark.parametrize(
    "changed",
    [
        Pools(predictors={"self": POOL}, generation=1),
        Pools(predictors={"other": POOL}),
        Pools(predictors={"self": PredictorPool(instructions=("Own",), demo_sets=POOL.demo_sets)}),
        Pools(predictors={"self": PredictorPool(instructions=("own",), demo_sets=((), ({"q": 1},)))}),
        Pools(predictors={"self": PredictorPool(instructions=("own",), demo_sets=(({"q": "1"},), ()))}),
    ],
)
def test_any_change_of_meaning_changes_the_key(changed: Pools) -> None:
    assert changed.key() != Pools(predictors={"self": POOL}).key()


def test_an_empty_set_is_never_added() -> None:
    pool = PredictorPool(instructions=("own",), demo_sets=(({"q": 1},),))
    assert pool.extended(demo_sets=[(), ({"q": 2},)]).demo_sets == (({"q": 1},), ({"q": 2},))


def test_one_and_true_are_different_demos() -> None:
    pool = PredictorPool(instructions=("own",), demo_sets=(({"q": 1},),))
    assert len(pool.extended(demo_sets=[({"q": True},), ({"q": 1},)]).demo_sets) == 2


def test_a_pool_whose_meaning_changed_does_not_continue() -> None:
    old = Pools(predictors={"self": POOL})
    reordered = Pools(predictors={"self": POOL.model_copy(update={"demo_sets": POOL.demo_sets[::-1]})}, generation=1)
    assert not reordered.continues(old)
    longer = old.extended({"self": ["new"]})
    assert longer.continues(old)
    assert not old.continues(longer)
    assert not Pools(predictors={}).continues(old)


def test_origins_stay_beside_what_they_are_of() -> None:
    # A pool of before origins were kept.
    pool = POOL.extended(["written down", Proposal("proposed", "by a model")], [({"q": "2"},)], origin="by hand")
    assert list(zip(pool.instructions, pool.instruction_origins, strict=True)) == [
        ("own", ""), ("written down", "by hand"), ("proposed", "by a model"),
    ]  # fmt: skip
    assert pool.demo_origins == ("", "", "by hand")
    assert POOL.extended().instruction_origins == ()
    with pytest.raises(ValidationError, match="2 origins for 1 instructions"):
        PredictorPool(instructions=("own",), demo_sets=((),), instruction_origins=("a", "b"))


def test_origins_are_notes_and_no_part_of_the_key() -> None:
    noted = POOL.model_copy(update={"instruction_origins": ("program",), "demo_origins": ("program", "labelled")})
    assert Pools(predictors={"self": noted}).key() == Pools(predictors={"self": POOL}).key()


def test_files_of_before_generations_load() -> None:
    old = '{"predictors": {"self": {"instructions": ["own"], "demo_sets": [[], [{"q": "1"}]]}}}'
    loaded = Pools.model_validate_json(old)
    assert loaded.generation == 0
    assert loaded == Pools(predictors={"self": POOL})


def test_what_is_known_makes_no_new_generation_and_unknown_predictors_are_refused() -> None:
    old = Pools(predictors={"self": POOL})
    assert old.extended({"self": ["own"]}, {"self": [({"q": "1"},), ()]}) is old
    assert old.extended({"self": ["a"]}).extended({"self": ["b"]}).generation == 2
    with pytest.raises(ConfigError, match=r"no predictor 'answer'; they have \['self'\]"):
        old.extended({"answer": ["x"]})
