"""The joint space: what a trial may choose, what is fixed, and which spaces are refused."""

import json

import dspy
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from promptopt.config.experiment import SearchConfig
from promptopt.config.joint import SEARCHABLE, NumberRange, WeightsSearch, default_recipe_space, with_parameter
from promptopt.config.recipe import TrainingRecipe
from promptopt.errors import ConfigError
from promptopt.pools.build import build_pools
from promptopt.study.space import SearchSpace

PROGRAM = dspy.Predict("document, question -> answer")


class Chain(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        self.find = dspy.Predict("document, question -> quote")
        self.tell = dspy.Predict("quote, question -> answer")


def space(config: SearchConfig, program: dspy.Module = PROGRAM, recipe: TrainingRecipe | None = None) -> SearchSpace:
    return SearchSpace.of_config(config, build_pools(program, config, [], 0), recipe)


def asked(of: SearchSpace, seed: int) -> tuple[optuna.Trial, object]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    trial = study.ask()
    return trial, of.suggest(trial)


@given(st.integers(0, 10_000), st.sampled_from([2e-4, 1e-3, 0.5]), st.booleans())
def test_every_proposal_of_the_default_space_is_a_valid_recipe(seed: int, rate: float, reasoning: bool) -> None:
    layout = {"reasoning": (False, True)} if reasoning else {"reminder": (True, False)}
    recipe = TrainingRecipe(learning_rate=rate, rank=24, alpha=24)
    trial, suggestion = asked(space(SearchConfig(layout=layout), recipe=recipe), seed)
    tuned = trial.params["weights"] == "tuned"
    assert tuned == any(name.startswith("recipe.") for name in trial.params)
    found = suggestion.recipe  # type: ignore[attr-defined]
    assert (found is not None) == tuned
    if found is not None:
        assert rate / 5 <= found.learning_rate <= min(0.99, rate * 5)
        assert found.alpha == trial.params["recipe.alpha_over_rank"] * found.rank
        assert ("recipe.student_reasoning" in trial.params) == reasoning


def test_the_start_recipe_is_one_point_of_its_space() -> None:
    start = TrainingRecipe(rank=24, alpha=36, epochs=2.5, learning_rate=7e-4)
    recipes = space(SearchConfig(), recipe=start).recipe
    assert recipes is not None
    fixed = optuna.trial.FixedTrial(recipes.start_params())  # type: ignore[arg-type]
    assert recipes.suggest(fixed, lambda name: None) == start  # type: ignore[arg-type]


def test_one_value_fixes_a_recipe_parameter_and_a_whole_range_is_drawn_in_integers() -> None:
    weights = WeightsSearch(recipe={"rank": (64,), "epochs": NumberRange(low=1, high=4)})
    of = space(SearchConfig(weights=weights), recipe=TrainingRecipe(rank=16, alpha=32))
    assert set(of.parameters()) >= {"recipe.epochs"}
    assert "recipe.rank" not in of.parameters()
    for seed in range(20):
        trial, suggestion = asked(of, seed)
        if suggestion.recipe is not None:  # type: ignore[attr-defined]
            assert suggestion.recipe.rank == 64  # type: ignore[attr-defined]
            assert suggestion.recipe.alpha == 128  # type: ignore[attr-defined]
            assert trial.params["recipe.epochs"] in (1, 2, 3, 4)


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        ({"learning_rat": [1e-3]}, "weights.recipe.learning_rat is no recipe parameter"),
        ({"learning_rate": []}, "has no values"),
        ({"learning_rate": {"low": 1e-2, "high": 1e-3}}, "is empty"),
        ({"learning_rate": {"low": 0, "high": 1e-3, "log": True}}, "starts above 0"),
        ({"learning_rate": {"low": 1e-4, "high": 3}}, "3 is not allowed"),
        ({"loss": ["nll", "mse"]}, "'mse' is not allowed"),
        ({"max_length": [512]}, "is no recipe parameter"),
    ],
)
def test_bad_recipe_spaces_are_refused_with_what_is_wrong(recipe: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        SearchConfig.model_validate({"weights": {"recipe": recipe}})
    assert said in str(caught.value)


def test_every_searchable_parameter_is_one_of_the_recipe() -> None:
    names = set(SEARCHABLE) - {"alpha_over_rank"}
    assert names <= set(TrainingRecipe.model_fields)
    assert set(default_recipe_space(TrainingRecipe(), reasoning=True)) <= set(SEARCHABLE)
    assert with_parameter(TrainingRecipe(rank=16, alpha=32), "rank", 8).alpha == 16


@pytest.mark.parametrize(
    ("fixed", "said"),
    [
        ({"layout.query_positon": "after"}, "Did you mean 'layout.query_position'"),
        ({"layout.query_position": "middle"}, "it is searched in 'declared', 'before', 'after', 'both'"),
        ({"layout.structure": 1}, "search.fixed.layout.structure is 1"),
        ({"recipe.learning_rate": 0.5}, "it is searched in 4e-05 to 0.001"),
    ],
)
def test_bad_fixed_values_are_refused(fixed: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said.replace("(", r"\(")):
        space(SearchConfig.model_validate({"fixed": fixed}), recipe=TrainingRecipe())


def test_a_fixed_value_holds_for_the_untouched_program_too() -> None:
    of = space(SearchConfig(fixed={"layout.output_style": "json"}), recipe=TrainingRecipe())
    assert of.untouched()["layout.output_style"] == "json"
    assert of.untouched()["weights"] == "frozen"
    assert not any(name.startswith("recipe.") for name in of.untouched())


def test_each_predictor_may_have_a_layout_of_its_own() -> None:
    config = SearchConfig(layout={"output_style": ("dspy", "xml", "label")}, layouts="per_predictor")
    of = space(config, Chain())
    assert set(of.parameters()) == {"find.layout.output_style", "tell.layout.output_style"}
    differ = 0
    for seed in range(20):
        trial, suggestion = asked(of, seed)
        candidate = suggestion.candidate  # type: ignore[attr-defined]
        for name in ("find", "tell"):
            assert candidate.layout_of(name).output_style == trial.params[f"{name}.layout.output_style"]
        program = candidate.apply(Chain())
        assert program.find.layout.output_style == trial.params["find.layout.output_style"]
        differ += candidate.layout_of("find") != candidate.layout_of("tell")
    assert differ > 5
    assert set(space(config.model_copy(update={"layouts": "shared"}), Chain()).parameters()) == {"layout.output_style"}


def test_the_identity_changes_with_whatever_a_parameter_means() -> None:
    base = SearchConfig(layout={"reminder": (True, False)})
    own = space(base, recipe=TrainingRecipe()).identity()
    assert space(base, recipe=TrainingRecipe()).identity() == own
    others = [
        space(base),
        space(base, recipe=TrainingRecipe(rank=8)),
        space(base.model_copy(update={"instructions": ("Answer.",)}), recipe=TrainingRecipe()),
        space(base.model_copy(update={"layout": {"prefill": (True, False)}}), recipe=TrainingRecipe()),
    ]  # fmt: skip
    assert own not in {other.identity() for other in others}
    json.dumps(own)
