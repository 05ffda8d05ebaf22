"""Bootstrapped demos: what each predictor of a program said on the way to a good answer (DSPy's BootstrapFewShot).

This is what gives the inner predictors of a chain demos: their fields are in no data. A teacher (often a larger model)
runs the program on training rows; runs that the metric accepts become demos, reasoning included.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing

import dspy

from promptopt.evaluation.answer import TraceStep
from promptopt.evaluation.evaluate import Evaluator, iterate_answers
from promptopt.layout.signature import REASONING
from promptopt.pools.demos import short_rows
from promptopt.pools.pool import Demo, DemoSet
from promptopt.records import DataRow, ExampleRecord, Outcome


def bootstrapped_demos(
    teacher: Evaluator,
    program: dspy.Module,
    rows: Sequence[DataRow],
    wanted: int,
    *,
    min_score: float = 1.0,
    parallel: int | None = None,
    on_record: Callable[[ExampleRecord], None] | None = None,
) -> dict[str, list[Demo]]:
    """Return predictor name -> up to `wanted` demos, from the first rows of `rows` that the teacher answered well.

    Rows are asked in order, and no more once every predictor has its demos. The same demos come out however many rows
    run at once. A predictor that is called several times in one run gives the demo of one call, chosen by the row's id.

    Args:
        teacher: the program, as it stands, on the LM that teaches.
        program: says which fields a predictor has.
        wanted: 0 asks nothing.
        parallel: rows that run at once; None = as many as the teacher's LM answers at once.
        on_record: called after every row that was asked.

    Raises:
        PromptoptError: the teacher's LM is broken, or a row lacks what the metric needs.
    """
    predictors = dict(program.named_predictors())
    demos: dict[str, list[Demo]] = {name: [] for name in predictors}
    if wanted < 1 or not predictors:
        return demos
    with closing(iterate_answers(teacher, rows, (), parallel=parallel)) as answers:
        for row, answer in answers:
            assert answer is not None  # No row was known.
            record = teacher.record(row, answer)
            if on_record:
                on_record(record)
            if record.outcome is not Outcome.SCORED or record.score is None or record.score < min_score:
                continue
            for name, found in _demos_of(predictors, answer.trace, row.id).items():
                if len(demos[name]) < wanted and found not in demos[name]:
                    demos[name].append(found)
            if all(len(of_one) >= wanted for of_one in demos.values()):
                break
    return demos


def bootstrap_order(rows: Sequence[DataRow], inputs: Sequence[str], most: int, seed: int) -> list[DataRow]:
    """Return up to `most` rows to ask a teacher, in seeded order, without the longest quarter."""
    usable = short_rows(rows, inputs, 1)
    random.Random(f"{seed}:bootstrap").shuffle(usable)
    return usable[:most]


def demo_sets_of(demos: Mapping[str, Sequence[Demo]], n_sets: int, largest: int, seed: int) -> dict[str, list[DemoSet]]:
    """Return predictor name -> up to `n_sets` different demo sets, of sizes 1, 2, … `largest`, 1, 2, … in turn.

    While there are demos enough, no demo stands in two sets, and sets with the same number come from the same runs in
    all predictors that every run calls with something new. Where too few answers were good, the rest is drawn from all.
    """
    return {name: _sets(of_one, n_sets, largest, f"{seed}:{name}") for name, of_one in demos.items()}


def demos_wanted(n_sets: int, largest: int) -> int:
    """Return how many demos fill `n_sets` sets without using one twice."""
    return sum(1 + number % largest for number in range(n_sets))


def _sets(demos: Sequence[Demo], n_sets: int, largest: int, seed: str) -> list[DemoSet]:
    draw = random.Random(seed)
    sets: list[DemoSet] = []
    used = 0
    for number in range(n_sets):
        size = min(1 + number % largest, len(demos))
        if used + size <= len(demos):
            chosen = tuple(demos[used : used + size])
            used += size
        else:
            chosen = tuple(draw.sample(demos, size))
        if chosen and chosen not in sets:
            sets.append(chosen)
    return sets


def _demos_of(predictors: Mapping[str, dspy.Predict], trace: Sequence[TraceStep], row_id: str) -> dict[str, Demo]:
    calls: dict[str, list[Demo]] = {}
    for step in trace:
        predictor = predictors.get(step.predictor)
        if predictor is None:
            continue
        demo = _demo(predictor.signature, step)
        if demo is not None:
            calls.setdefault(step.predictor, []).append(demo)
    # Of a loop, the last call is always the one that ends it; any other may teach as much.
    return {name: random.Random(f"{row_id}:{name}").choice(found) for name, found in calls.items()}


def _demo(signature: type[dspy.Signature], step: TraceStep) -> Demo | None:
    """Return the fields of one call, None where one is missing."""
    values = {**step.inputs, **step.outputs}
    # A layout that asks for reasoning adds the field to signatures without it: a layout that does not, leaves it out.
    names = [*signature.input_fields, *([REASONING] if REASONING in step.outputs else []), *signature.output_fields]
    demo = {name: values.get(name) for name in dict.fromkeys(names)}
    if demo.get(REASONING) in (None, "") and REASONING not in signature.fields:
        demo.pop(REASONING, None)
    return demo if all(value not in (None, "") for value in demo.values()) else None
