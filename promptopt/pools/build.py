"""Builds the pools of a program from its own prompts, written variants and training rows."""

from collections.abc import Sequence

import dspy

from promptopt.candidate import Candidate
from promptopt.config.experiment import SearchConfig
from promptopt.layout.spec import Layout
from promptopt.pools.demos import labelled_demo_sets
from promptopt.pools.instructions import instruction_pool
from promptopt.pools.pool import Pools, PredictorPool
from promptopt.records import DataRow


def build_pools(program: dspy.Module, config: SearchConfig, train: Sequence[DataRow], seed: int) -> Pools:
    """Return the pools of `program`; deterministic for the same arguments."""
    own = Candidate.of_program(program, Layout()).predictors
    predictors = dict(program.named_predictors())
    alone = len(predictors) == 1
    pools = {}
    for name, predictor in predictors.items():
        fields = [*predictor.signature.input_fields, *predictor.signature.output_fields]
        fields = [field for field in fields if field != "reasoning"]
        drawn = labelled_demo_sets(train, fields, config.demo_sets, config.demos_per_set, seed) if alone else ()
        pools[name] = PredictorPool(
            instructions=instruction_pool(own[name].instructions, config.instructions),
            demo_sets=(own[name].demos, *(demos for demos in drawn if demos != own[name].demos)),
        )
    return Pools(predictors=pools)
