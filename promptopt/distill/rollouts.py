"""Rollouts: a teacher's answers to training inputs, each with its score. Renders nothing."""

from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Literal

import dspy
from pydantic import JsonValue

from promptopt.errors import ConfigError
from promptopt.evaluation.answer import TraceStep
from promptopt.evaluation.evaluate import Evaluator, iterate_answers
from promptopt.evaluation.given import GivenInputs
from promptopt.evaluation.throughput import Throughput
from promptopt.metrics.base import Metric
from promptopt.records import DataRow, Record
from promptopt.rundir import append_jsonl, read_jsonl


class RolloutStep(Record):
    """One predictor call of a rollout."""

    predictor: str
    inputs: dict[str, JsonValue]
    outputs: dict[str, JsonValue]


class Rollout(Record):
    """One teacher answer. `score` is None where the metric was undecided; steps are empty where parsing failed."""

    row_id: str
    source: Literal["gold", "candidate"]
    score: float | None
    steps: tuple[RolloutStep, ...]


def gold_rollouts(
    program: dspy.Module, metric: Metric, rows: Sequence[DataRow], inputs: Sequence[str] | None = None
) -> list[Rollout]:
    """Return the data's own answers as rollouts, scored by the metric: a row that fails its own metric is bad data.

    What the predictor is given is what the program hands to it, e.g. the passages it retrieves for the row.

    Args:
        inputs: the fields of a row that the program is given; None = its predictor's input fields.

    Raises:
        ConfigError: the program has several predictors (the data does not say what the inner ones answer), or an output
            field or one of the program's inputs is not among the data's fields.
    """
    predictors = dict(program.named_predictors())
    if len(predictors) != 1:
        raise ConfigError(
            f"distill.teacher `gold` needs a program of one predictor; this one has {sorted(predictors)}. "
            "Use `teacher: candidate`."
        )
    ((name, predictor),) = predictors.items()
    inputs = list(predictor.signature.input_fields if inputs is None else inputs)
    given = GivenInputs(program)
    outputs = list(predictor.signature.output_fields)
    rollouts = []
    for row in rows:
        missing = [field for field in [*inputs, *outputs] if row.fields.get(field) is None]
        if missing:
            raise ConfigError(
                f"distill.teacher `gold` needs the fields {inputs + outputs} in the data; row {row.id} "
                f"lacks {missing}. Map them under data.fields, or use `teacher: candidate`."
            )
        answer = {field: row.fields[field] for field in outputs}
        _, handed = given.of({field: row.fields[field] for field in inputs})
        step = RolloutStep(predictor=name, inputs=handed, outputs=answer)
        score = metric.score(row.fields, answer).value
        rollouts.append(Rollout(row_id=row.id, source="gold", score=score, steps=(step,)))
    return rollouts


def candidate_rollouts(
    evaluator: Evaluator,
    rows: Sequence[DataRow],
    store: Path | None = None,
    on_rollout: Callable[[Rollout], None] | None = None,
    *,
    parallel: int | None = None,
    throughput: Throughput | None = None,
) -> list[Rollout]:
    """Return the teacher's answers to `rows`, in their order; those that `store` already holds are not asked for again.

    Args:
        store: JSONL file of rollouts; new ones are appended at once.
        on_rollout: called after every row, whether asked or read.
        parallel: rows that run at once; None = as many as the teacher answers at once.
        throughput: told of every answer that was asked for.
    """
    known = {rollout.row_id: rollout for rollout in read_jsonl(store, Rollout)} if store else {}
    rollouts = []
    with closing(iterate_answers(evaluator, rows, known, parallel=parallel, stops=())) as answers:
        for row, answer in answers:
            if answer is None:
                rollout = known[row.id]
            else:
                record = evaluator.record(row, answer)
                rollout = Rollout(
                    row_id=row.id,
                    source="candidate",
                    score=record.score,
                    steps=tuple(_step(step) for step in answer.trace),
                )
                if store:
                    append_jsonl(store, rollout)
                if throughput:
                    throughput.add(record)
            if on_rollout:
                on_rollout(rollout)
            rollouts.append(rollout)
    return rollouts


def _step(step: TraceStep) -> RolloutStep:
    return RolloutStep(predictor=step.predictor, inputs=step.inputs, outputs=step.outputs)
