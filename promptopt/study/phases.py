"""The order of a study's trials: prompts, then prompts and weights, then prompts on the best weights.

Which phase a trial belongs to depends on its slot alone, its place in the plan, so every worker knows it without
asking. Prompt, weights, prompt follows BetterTogether (arXiv 2407.10930). Knows slots and records, no Optuna.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from pydantic import JsonValue

from promptopt.config.experiment import SearchConfig
from promptopt.records import TrialRecord
from promptopt.study.recipe_space import PREFIX
from promptopt.study.space import FROZEN, TUNED, WEIGHTS, SearchSpace


class Phase(StrEnum):
    """Part of a study."""

    PROMPTS = "prompts"
    WEIGHTS = "prompts and weights"
    AFTER = "prompts on tuned weights"


@dataclass(frozen=True)
class Plan:
    """All trials of a study.

    Attributes:
        prompts: trials on frozen weights; slot 0 is the untouched program.
        weights: trials that may train; winners: how many of them tune the best frozen candidates.
        after: trials that search the prompt on the best tuned weights.
    """

    prompts: int
    weights: int = 0
    winners: int = 0
    after: int = 0

    @classmethod
    def of_config(cls, config: SearchConfig, tunes: bool, prompts: int | None = None) -> "Plan":
        """Return the plan of `config`.

        Args:
            tunes: whether weights are trained.
            prompts: trials on frozen weights, where not all of `config.trials`.
        """
        prompts = config.trials if prompts is None else prompts
        weights = config.weights if tunes else None
        if weights is None:
            return cls(prompts)
        return cls(prompts, weights.trials, weights.winners, weights.after)

    @property
    def trials(self) -> int:
        """Number of all trials."""
        return self.prompts + self.weights + self.after

    def phase(self, slot: int) -> Phase:
        """Return the phase of the trial at `slot`."""
        if slot < self.prompts:
            return Phase.PROMPTS
        return Phase.WEIGHTS if slot < self.prompts + self.weights else Phase.AFTER

    def needs_before(self, slot: int) -> int:
        """Return how many first slots must be finished before the trial at `slot` can begin."""
        starts = {Phase.PROMPTS: 0, Phase.WEIGHTS: self.prompts, Phase.AFTER: self.prompts + self.weights}
        return starts[self.phase(slot)]

    def given(self, slot: int, space: SearchSpace, earlier: Sequence[TrialRecord]) -> dict[str, JsonValue]:
        """Return the parameters that are not the sampler's choice at `slot`.

        Args:
            earlier: the finished trials.
        """
        if slot == 0:
            return space.untouched()
        fixed: dict[str, JsonValue] = dict(space.fixed)
        if space.recipe is None:
            return fixed
        phase = self.phase(slot)
        if phase is Phase.PROMPTS:
            return {**_without_recipe(fixed), WEIGHTS: FROZEN}
        if phase is Phase.AFTER:
            best = best_tuned(earlier)
            return fixed if best is None else {**_without_layout(best.params), **fixed, WEIGHTS: TUNED}
        rank = slot - self.prompts
        winners = ranked(
            [trial for trial in earlier if trial.kind == FROZEN and trial.number < self.prompts and trial.feasible]
        )
        if rank < self.winners and winners:
            # Fewer candidates than winners: the best is tuned again, with a recipe that the sampler chooses.
            known = winners[rank] if rank < len(winners) else winners[0]
            recipe = space.recipe.start_params() if rank < len(winners) else {}
            return {**known.params, **recipe, **fixed, WEIGHTS: TUNED}
        return fixed


def ranked(trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Return the trials that saw every example, best first; of equals the cheaper prompt, then the earlier."""
    complete = [trial for trial in trials if trial.state == "complete" and trial.value is not None]
    return sorted(complete, key=lambda trial: (-(trial.value or 0.0), trial.prompt_tokens, trial.number))


def best_tuned(trials: Sequence[TrialRecord]) -> TrialRecord | None:
    """Return the best trial that has trained weights of its own; None where there is none."""
    own = [trial for trial in trials if trial.kind == TUNED and trial.feasible and trial.weights_of == trial.number]
    return next(iter(ranked(own)), None)


def _without_recipe(params: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    return {name: value for name, value in params.items() if not name.startswith(PREFIX)}


def _without_layout(params: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Return the recipe alone: in the last phase the prompt is free again."""
    return {name: value for name, value in params.items() if name.startswith(PREFIX)}
