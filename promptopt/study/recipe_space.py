"""The recipe half of the space: Trial -> TrainingRecipe. Suggests; trains nothing.

Its parameters exist only in trials whose weights are tuned; the sampler models them in a group of their own.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import optuna
from pydantic import JsonValue

from promptopt.config.joint import (
    ALPHA_OVER_RANK,
    NumberRange,
    Searched,
    WeightsSearch,
    default_recipe_space,
    parameter_of,
    with_parameter,
)
from promptopt.config.recipe import TrainingRecipe
from promptopt.errors import ConfigError
from promptopt.study.suggesting import Before, suggest_choice, suggest_number

PREFIX = "recipe."


@dataclass(frozen=True)
class RecipeSpace:
    """What a tuned trial may choose of its recipe.

    Attributes:
        searched: parameter -> values, the start recipe's own value first, or a range.
        start: what all other fields keep; the recipe that the winners of the frozen trials are tuned with.
    """

    searched: Mapping[str, Searched]
    start: TrainingRecipe

    @classmethod
    def of_config(cls, weights: WeightsSearch, start: TrainingRecipe, reasoning: bool) -> "RecipeSpace":
        """Return the space around `start`; a parameter with one value is not searched.

        Raises:
            ConfigError: the start recipe lies outside a range.
        """
        named = default_recipe_space(start, reasoning) if weights.recipe is None else weights.recipe
        for name, searched in named.items():
            if not isinstance(searched, NumberRange) and len(searched) == 1:
                start = with_parameter(start, name, searched[0])
        space: dict[str, Searched] = {}
        for name, searched in named.items():
            if isinstance(searched, NumberRange):
                if parameter_of(start, name) not in searched:
                    raise ConfigError(
                        f"The recipe's {name} is {parameter_of(start, name)!r}, outside the range that is searched "
                        f"around it, {searched.low} to {searched.high}. Change one of them."
                    )
                space[name] = searched
            elif len(searched) > 1:
                space[name] = tuple(dict.fromkeys([parameter_of(start, name), *searched]))
        return cls(space, start)

    def suggest(self, trial: optuna.Trial, before: Before) -> TrainingRecipe:
        """Return the recipe that the sampler proposes for `trial`."""
        values: dict[str, JsonValue] = {}
        for name, searched in self.searched.items():
            before(PREFIX + name)
            if isinstance(searched, NumberRange):
                values[name] = suggest_number(trial, PREFIX + name, searched)
            else:
                values[name] = suggest_choice(trial, PREFIX + name, searched)
        recipe = self.start
        # The scale is said relative to the rank, so the rank comes first.
        for name in sorted(values, key=lambda name: (name == ALPHA_OVER_RANK, name)):
            recipe = with_parameter(recipe, name, values[name])
        return recipe

    def start_params(self) -> dict[str, JsonValue]:
        """Return the parameters of the start recipe."""
        return {PREFIX + name: parameter_of(self.start, name) for name in self.searched}

    def distributions(self) -> dict[str, Searched]:
        """Return parameter -> what it may be, under the names the study knows."""
        return {PREFIX + name: searched for name, searched in self.searched.items()}
