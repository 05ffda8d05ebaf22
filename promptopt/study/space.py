"""The search space: Trial -> Layout and pool indices, and whether the weights are tuned. Suggests; evaluates nothing.

What is searched follows what others measured: the query's position (arXiv 2601.14152) and formatting (FormatSpread,
arXiv 2310.11324) move small models by tens of points and rank differently per model; searching format and content
together beats one after the other (CFPO, arXiv 2502.04295); prompt and weights each find what the other cannot
(BetterTogether, arXiv 2407.10930).
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import optuna
from pydantic import JsonValue

from promptopt.candidate import Candidate, PredictorPrompt
from promptopt.config.experiment import SearchConfig
from promptopt.config.joint import NumberRange, Searched
from promptopt.config.recipe import TrainingRecipe
from promptopt.layout.spec import Layout
from promptopt.pools.pool import Pools
from promptopt.study.recipe_space import PREFIX, RecipeSpace
from promptopt.study.space_checks import check_fixed
from promptopt.study.suggesting import Before, suggest_choice, suggest_index

WEIGHTS = "weights"
FROZEN, TUNED = "frozen", "tuned"

SEARCHED_BY_DEFAULT: Mapping[str, tuple[JsonValue, ...]] = {
    "query_position": ("before", "after", "both"),
    "field_style": ("dspy", "xml", "markdown", "label", "json"),
    "instruction_place": ("system", "user_start", "user_end", "both"),
    "descriptions": ("none", "names", "full"),
    "structure": (True, False),
    "demo_placement": ("turns", "block"),
    "output_style": ("dspy", "xml", "json", "label", "bare"),
    "reminder": (True, False),
    "prefill": (True, False),
    "system_role": ("native", "merged"),
}
"""Layout field -> values. Reasoning and the scaffold's language are searched only where an experiment names them."""


@dataclass(frozen=True)
class Suggestion:
    """What a trial is about. `recipe` is None where the weights stay frozen."""

    candidate: Candidate
    recipe: TrainingRecipe | None = None


@dataclass(frozen=True)
class SearchSpace:
    """Everything a trial may choose.

    Attributes:
        choices: Layout field -> values, the start layout's own value first.
        start: what fields outside `choices` keep, and what trial 0 is.
        per_predictor: whether each predictor has a layout of its own.
        recipe: what tuned trials choose beside; None = all trials are frozen.
        fixed: parameter -> the one value it has in every trial.
    """

    choices: Mapping[str, tuple[JsonValue, ...]]
    start: Layout
    pools: Pools
    per_predictor: bool = False
    recipe: RecipeSpace | None = None
    fixed: Mapping[str, JsonValue] = field(default_factory=dict)

    @classmethod
    def of_config(cls, config: SearchConfig, pools: Pools, recipe: TrainingRecipe | None = None) -> "SearchSpace":
        """Return the space that `config` and the frozen pools span.

        Args:
            recipe: where the weights are searched, the recipe around which.

        Raises:
            ConfigError: a fixed parameter does not exist, or cannot have its value.
        """
        searched = SEARCHED_BY_DEFAULT if config.layout is None else config.layout
        choices = {
            name: tuple(dict.fromkeys([getattr(config.start, name), *values])) for name, values in searched.items()
        }
        choices = {name: values for name, values in choices.items() if len(values) > 1}
        recipes = None
        if recipe is not None and config.weights is not None:
            reasoning = config.start.reasoning or "reasoning" in choices
            recipes = RecipeSpace.of_config(config.weights, recipe, reasoning)
        per_predictor = config.layouts == "per_predictor" and len(pools.predictors) > 1
        space = cls(choices, config.start, pools, per_predictor, recipes, dict(config.fixed))
        check_fixed(config.fixed, space.parameters())
        return space

    def parameters(self) -> dict[str, Searched]:
        """Return parameter -> what it may be, all of them, in the order in which they are suggested."""
        found: dict[str, Searched] = {}
        for prefix in self._layout_prefixes().values():
            found |= {f"{prefix}layout.{name}": values for name, values in self.choices.items()}
        for name, pool in self.pools.predictors.items():
            found |= {
                f"{name}.{part}": tuple(range(size))
                for part, size in (("instructions", len(pool.instructions)), ("demo_set", len(pool.demo_sets)))
                if size > 1
            }
        if self.recipe is not None:
            found |= {WEIGHTS: (FROZEN, TUNED), **self.recipe.distributions()}
        return found

    def identity(self) -> str:
        """Return a hash of everything that decides what a trial's parameters mean; another space is another study."""
        ranges = {
            name: searched.model_dump() if isinstance(searched, NumberRange) else list(searched)
            for name, searched in self.parameters().items()
        }
        start = None if self.recipe is None else self.recipe.start.model_dump(mode="json")
        parts: dict[str, Any] = {
            "parameters": ranges, "fixed": dict(self.fixed), "start": self.start.model_dump(mode="json"),
            "recipe": start, "pools": self.pools.model_dump(mode="json"),
        }  # fmt: skip
        text = json.dumps(parts, sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode("utf-8", errors="surrogatepass")).hexdigest()

    def suggest(self, trial: optuna.Trial, before: Before | None = None) -> Suggestion:
        """Return what the sampler proposes for `trial`.

        Args:
            before: called with a parameter's name before it is suggested.
        """
        before = before or (lambda name: None)
        layouts = {}
        for predictor, prefix in self._layout_prefixes().items():
            layout: dict[str, JsonValue] = {}
            for name, values in self.choices.items():
                before(f"{prefix}layout.{name}")
                layout[name] = suggest_choice(trial, f"{prefix}layout.{name}", values)
            layouts[predictor] = Layout.model_validate({**self.start.model_dump(), **layout})
        instructions, demo_sets = {}, {}
        for name, pool in self.pools.predictors.items():
            before(f"{name}.instructions")
            instructions[name] = suggest_index(trial, f"{name}.instructions", len(pool.instructions))
            before(f"{name}.demo_set")
            demo_sets[name] = suggest_index(trial, f"{name}.demo_set", len(pool.demo_sets))
        first = next(iter(layouts.values()))
        candidate = self.pools.candidate(first, instructions, demo_sets)
        if self.per_predictor:
            candidate = candidate.model_copy(
                update={"predictors": {name: _laid_out(prompt, layouts[name]) for name, prompt in
                                       candidate.predictors.items()}}
            )  # fmt: skip
        if self.recipe is None:
            return Suggestion(candidate)
        before(WEIGHTS)
        if suggest_choice(trial, WEIGHTS, (FROZEN, TUNED)) == FROZEN:
            return Suggestion(candidate)
        return Suggestion(candidate, self.recipe.suggest(trial, before))

    def untouched(self) -> dict[str, JsonValue]:
        """Return the parameters of trial 0: the program as it was written, in the start layout, on frozen weights."""
        params = {
            name: 0 if name.endswith((".instructions", ".demo_set")) else values[0]
            for name, values in self.parameters().items()
            if not name.startswith(PREFIX) and not isinstance(values, NumberRange)
        }
        fixed = {name: value for name, value in self.fixed.items() if name in params and name != WEIGHTS}
        return {**params, **fixed}

    def _layout_prefixes(self) -> dict[str, str]:
        """Return whose layout -> prefix of its parameters; one entry where all share a layout."""
        return {name: f"{name}." for name in self.pools.predictors} if self.per_predictor else {"": ""}


def _laid_out(prompt: PredictorPrompt, layout: Layout) -> PredictorPrompt:
    return prompt.model_copy(update={"layout": layout})
