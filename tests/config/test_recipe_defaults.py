"""Recipe fields that an experiment leaves out: chosen from model and rows, never against what is written."""

from pathlib import Path

import pytest

from promptopt.config.experiment import ExperimentConfig
from promptopt.config.joint import NumberRange
from promptopt.config.load import load_experiment
from promptopt.config.recipe import TrainingRecipe
from promptopt.config.recipe_defaults import TrainingFacts, resolve_recipe
from tests.config.test_load import GOOD

SMALL = TrainingFacts(width=256, parameters=3_000_000, context=2048, rows=630, longest_row=400)
LARGE = TrainingFacts(width=4096, parameters=8_000_000_000, context=131_072, rows=20_000, longest_row=3000)


def test_what_is_written_always_wins() -> None:
    written = TrainingRecipe(
        rank=4, alpha=1.0, learning_rate=1e-5, epochs=7, batch_size=3, gradient_accumulation=2, max_length=64,
        gradient_checkpointing=False,
    )  # fmt: skip
    facts = TrainingFacts(4096, 8_000_000_000, 8192, 10, 9000, needs_checkpointing=lambda recipe: True)
    resolved = resolve_recipe(written, facts)
    assert resolved.recipe == written
    assert resolved.reasons == {}


def test_the_demo_trains_as_its_file_says(repository: Path) -> None:
    written = load_experiment(repository / "experiments" / "demo" / "experiment.yaml").finetune
    resolved = resolve_recipe(written, SMALL)
    assert resolved.recipe == written
    assert list(resolved.reasons) == ["gradient_accumulation"]


def test_larger_models_learn_slower_and_short_runs_faster() -> None:
    rate = resolve_recipe(TrainingRecipe(), LARGE).recipe.learning_rate
    assert 2e-4 < rate < 4e-4  # QLoRA's 2e-4 at this width
    assert resolve_recipe(TrainingRecipe(), SMALL).recipe.learning_rate > 5 * rate
    short = TrainingFacts(4096, 8_000_000_000, 8192, rows=100)
    assert resolve_recipe(TrainingRecipe(), short).recipe.learning_rate == pytest.approx(1.5 * rate, rel=0.05)


def test_rows_decide_epochs_batch_and_length() -> None:
    small, large = (resolve_recipe(TrainingRecipe(), facts).recipe for facts in (SMALL, LARGE))
    assert (small.epochs, large.epochs) == (3.0, 2.0)
    # Two rows of 3000 tokens are computed at once, and the effective batch is the same.
    assert (large.batch_size, large.gradient_accumulation) == (2, 8)
    assert (small.max_length, large.max_length) == (512, 3840)
    assert resolve_recipe(TrainingRecipe(batch_size=2), SMALL).recipe.gradient_accumulation == 4
    tight = TrainingFacts(256, 3_000_000, context=450, rows=630, longest_row=400)
    assert resolve_recipe(TrainingRecipe(), tight).recipe.max_length == 450


def test_the_scale_of_the_update_follows_a_written_rank() -> None:
    assert resolve_recipe(TrainingRecipe(rank=64), SMALL).recipe.alpha == 128.0


def test_checkpointing_is_chosen_where_memory_is_short_and_decides_no_result() -> None:
    asked: list[TrainingRecipe] = []

    def needed(recipe: TrainingRecipe) -> bool:
        asked.append(recipe)
        return True

    facts = TrainingFacts(256, 3_000_000, 2048, 630, 400, needs_checkpointing=needed)
    resolved = resolve_recipe(TrainingRecipe(), facts)
    assert resolved.recipe.gradient_checkpointing
    assert asked[0].batch_size == resolved.recipe.batch_size
    assert resolved.recipe.result_settings() == resolve_recipe(TrainingRecipe(), SMALL).recipe.result_settings()


def test_a_chosen_value_stays_inside_what_is_searched() -> None:
    searched = {
        "learning_rate": NumberRange(low=1e-5, high=1e-4, log=True),
        "alpha_over_rank": NumberRange(low=0.5, high=1.0),
    }
    resolved = resolve_recipe(TrainingRecipe(), SMALL, searched)
    assert resolved.recipe.learning_rate == 1e-4
    assert resolved.recipe.alpha == resolved.recipe.rank
    assert "searched" in resolved.reasons["learning_rate"]


def test_only_a_written_rate_must_lie_in_the_searched_range() -> None:
    search = {"weights": {"recipe": {"learning_rate": {"low": 1e-3, "high": 1e-2}}}}
    assert ExperimentConfig.model_validate({**GOOD, "search": search}).finetune.learning_rate == 2e-4
    with pytest.raises(ValueError, match=r"finetune\.learning_rate is 0\.0002"):
        ExperimentConfig.model_validate({**GOOD, "search": search, "finetune": {"learning_rate": 2e-4}})


def test_reasons_say_value_and_why() -> None:
    lines = resolve_recipe(TrainingRecipe(), SMALL).lines()
    assert any(line.startswith("epochs: 3 (630 rows") for line in lines)
    assert any("width 256" in line for line in lines)
