"""Pools: the frozen lists a study indexes into. A study stores indices; `pools.json` says what they mean.

Knows nothing of trials. A pool never changes while a study lives, because Optuna's categorical choices are frozen.
"""

from pydantic import BaseModel, ConfigDict, JsonValue

from promptopt.candidate import Candidate, PredictorPrompt
from promptopt.layout.spec import Layout

Demo = dict[str, JsonValue]


class PredictorPool(BaseModel):
    """What one predictor may be told. Index 0 of both lists is the untouched program's own.

    Attributes:
        instructions: texts.
        demo_sets: each an ordered set of demos.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    instructions: tuple[str, ...]
    demo_sets: tuple[tuple[Demo, ...], ...]


class Pools(BaseModel):
    """Pools of all predictors of a program, by predictor name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    predictors: dict[str, PredictorPool]

    def candidate(self, layout: Layout, instructions: dict[str, int], demo_sets: dict[str, int]) -> Candidate:
        """Return the candidate that these indices (per predictor name) stand for."""
        return Candidate(
            layout=layout,
            predictors={
                name: PredictorPrompt(
                    instructions=pool.instructions[instructions[name]], demos=pool.demo_sets[demo_sets[name]]
                )
                for name, pool in self.predictors.items()
            },
        )
