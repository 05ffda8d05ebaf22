"""Builds the pools of a program from its own prompts, training rows and, where there are some, language models."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import dspy

from promptopt.candidate import Candidate
from promptopt.config.experiment import SearchConfig
from promptopt.evaluation.evaluate import Evaluator
from promptopt.layout.signature import REASONING
from promptopt.layout.spec import Layout
from promptopt.pools.bootstrap import bootstrap_order, bootstrapped_demos, demo_sets_of, demos_wanted
from promptopt.pools.demos import diverse_demo_sets, labelled_demo_sets, typical_demo_sets
from promptopt.pools.pool import Demo, DemoSet, Pools, PredictorPool
from promptopt.pools.proposals import propose_instructions
from promptopt.pools.settings import PoolSettings
from promptopt.pools.task_text import program_inputs
from promptopt.records import DataRow, ExampleRecord


@dataclass(frozen=True)
class PoolListeners:
    """Who is told while pools are built.

    Attributes:
        on_record: of every row the teacher was asked.
        on_refused: of every reply that was no new instruction: predictor, reply, why.
    """

    on_record: Callable[[ExampleRecord], None] | None = None
    on_refused: Callable[[str, str, str], None] | None = None


def build_pools(program: dspy.Module, config: SearchConfig, train: Sequence[DataRow], seed: int) -> Pools:
    """Return the pools of `program` without any model's help; deterministic for the same arguments."""
    settings = PoolSettings(
        written=tuple(config.instructions), labelled=config.demo_sets, demos_per_set=config.demos_per_set
    )
    return build_rich_pools(program, settings, train, seed, proposer=None, teacher=None)


def build_rich_pools(
    program: dspy.Module,
    settings: PoolSettings,
    train: Sequence[DataRow],
    seed: int,
    *,
    proposer: dspy.BaseLM | None,
    teacher: Evaluator | None,
    parallel: int | None = None,
    listeners: PoolListeners | None = None,
) -> Pools:
    """Return the pools of `program`, generation 0; deterministic for the same arguments and models.

    Each kind has draws of its own: asking for more of one kind moves indices, but changes no set of another kind.

    Args:
        proposer: writes instructions; without one, `settings.proposals` makes none.
        teacher: the untouched program on the LM whose good answers become demos; without one, `settings.bootstrapped`
            makes none.
        parallel: rows the teacher is asked at once; None = as many as its LM answers at once.

    Raises:
        LMError: the proposer or the teacher is broken. One that is merely bad at it leaves smaller pools.
        DataError: the metric of the teacher lacks a field of a row.
    """
    own = Candidate.of_program(program, Layout()).predictors
    predictors = dict(program.named_predictors())
    listeners = listeners or PoolListeners()
    taught = _taught(program, settings, train, seed, teacher, parallel, listeners.on_record)
    taught_sets = demo_sets_of(taught, settings.bootstrapped, settings.demos_per_set, seed)
    pools = {}
    for name, predictor in predictors.items():
        pool = PredictorPool(
            instructions=(own[name].instructions,),
            demo_sets=(own[name].demos,),
            instruction_origins=("program",),
            demo_origins=("program",),
        )
        pool = pool.extended(settings.written, origin="written")
        if len(predictors) == 1:
            for kind, sets in _sets_from_rows(predictor.signature, settings, train, seed):
                pool = pool.extended(demo_sets=sets, origin=kind)
        pool = pool.extended(demo_sets=taught_sets.get(name, ()), origin="bootstrapped")
        if proposer is not None:
            pool = _with_proposals(pool, proposer, program, name, train, settings, seed, taught[name], listeners)
        pools[name] = pool
    return Pools(predictors=pools)


def _sets_from_rows(
    signature: type[dspy.Signature], settings: PoolSettings, train: Sequence[DataRow], seed: int
) -> Iterator[tuple[str, Sequence[DemoSet]]]:
    inputs = [name for name in signature.input_fields if name != REASONING]
    outputs = [name for name in signature.output_fields if name != REASONING]
    most = settings.demos_per_set
    yield "labelled", labelled_demo_sets(train, [*inputs, *outputs], settings.labelled, most, seed)
    yield "diverse", diverse_demo_sets(train, inputs, outputs, settings.diverse, most, seed)
    yield "typical", typical_demo_sets(train, inputs, outputs, settings.typical, most, seed)


def _taught(
    program: dspy.Module,
    settings: PoolSettings,
    train: Sequence[DataRow],
    seed: int,
    teacher: Evaluator | None,
    parallel: int | None,
    on_record: Callable[[ExampleRecord], None] | None,
) -> dict[str, list[Demo]]:
    wanted = demos_wanted(settings.bootstrapped, settings.demos_per_set)
    if teacher is None or not wanted:
        return {name: [] for name, _ in program.named_predictors()}
    # Of a chain's inputs, those that the data has; which ones the program takes, only its code says.
    inputs = sorted(name for name in program_inputs(program) if any(name in row.fields for row in train))
    rows = bootstrap_order(train, inputs, settings.bootstrap_rows, seed)
    return bootstrapped_demos(
        teacher, program, rows, wanted, min_score=settings.min_score, parallel=parallel, on_record=on_record
    )


def _with_proposals(
    pool: PredictorPool,
    proposer: dspy.BaseLM,
    program: dspy.Module,
    name: str,
    train: Sequence[DataRow],
    settings: PoolSettings,
    seed: int,
    demos: Sequence[Demo],
    listeners: PoolListeners,
) -> PredictorPool:
    on_refused = listeners.on_refused
    proposals = propose_instructions(
        proposer,
        program,
        name,
        train,
        settings.proposals,
        seed,
        demos=demos,
        known=pool.instructions[1:],
        max_tokens=settings.proposal_tokens,
        on_refused=(lambda reply, why: on_refused(name, reply, why)) if on_refused else None,
    )
    return pool.extended(proposals)
