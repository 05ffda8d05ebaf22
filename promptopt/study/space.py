"""The search space: Trial -> Layout and pool indices. Only suggests; evaluates nothing.

What is searched follows what others measured: the query's position (arXiv 2601.14152) and formatting (FormatSpread,
arXiv 2310.11324) move small models by tens of points and rank differently per model; searching format and content
together beats one after the other (CFPO, arXiv 2502.04295).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast

import optuna
from pydantic import JsonValue

from promptopt.candidate import Candidate
from promptopt.config.experiment import SearchConfig
from promptopt.layout.spec import Layout
from promptopt.pools.pool import Pools

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
class SearchSpace:
    """Everything a frozen trial may choose.

    Attributes:
        choices: Layout field -> values, the start layout's own value first.
        start: what fields outside `choices` keep, and what trial 0 is.
    """

    choices: Mapping[str, tuple[JsonValue, ...]]
    start: Layout
    pools: Pools

    @classmethod
    def of_config(cls, config: SearchConfig, pools: Pools) -> "SearchSpace":
        """Return the space that `config` and the frozen pools span."""
        searched = SEARCHED_BY_DEFAULT if config.layout is None else config.layout
        choices = {
            name: tuple(dict.fromkeys([getattr(config.start, name), *values])) for name, values in searched.items()
        }
        return cls({name: values for name, values in choices.items() if len(values) > 1}, config.start, pools)

    def suggest(self, trial: optuna.Trial, before: Callable[[str], None] | None = None) -> Candidate:
        """Return the candidate that the sampler proposes for `trial`.

        Args:
            before: called with a parameter's name before it is suggested.
        """
        before = before or (lambda name: None)
        layout = {}
        for name, values in self.choices.items():
            before(f"layout.{name}")
            layout[name] = trial.suggest_categorical(f"layout.{name}", cast("tuple[str | bool | None, ...]", values))
        instructions, demo_sets = {}, {}
        for name, pool in self.pools.predictors.items():
            before(f"{name}.instructions")
            instructions[name] = _index(trial, f"{name}.instructions", len(pool.instructions))
            before(f"{name}.demo_set")
            demo_sets[name] = _index(trial, f"{name}.demo_set", len(pool.demo_sets))
        return self.pools.candidate(
            Layout.model_validate({**self.start.model_dump(), **layout}), instructions, demo_sets
        )

    def untouched(self) -> dict[str, JsonValue]:
        """Return the parameters of trial 0: the program as it was written, in the start layout."""
        params: dict[str, JsonValue] = {f"layout.{name}": values[0] for name, values in self.choices.items()}
        for name, pool in self.pools.predictors.items():
            if len(pool.instructions) > 1:
                params[f"{name}.instructions"] = 0
            if len(pool.demo_sets) > 1:
                params[f"{name}.demo_set"] = 0
        return params


def _index(trial: optuna.Trial, name: str, size: int) -> int:
    return int(trial.suggest_categorical(name, tuple(range(size)))) if size > 1 else 0
