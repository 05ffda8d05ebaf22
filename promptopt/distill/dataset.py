"""Rollouts -> chat rows in the student's layout, split into train and validation. Knows no trainer.

Only answers the metric accepts are taught: filtering is decisive (DSPy's own tutorial: Banking77 with Llama-3.2-1B,
51.0 unfiltered, 85.0 filtered).
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import dspy

from promptopt.candidate import Candidate
from promptopt.distill.rollouts import Rollout, RolloutStep
from promptopt.errors import DataError
from promptopt.layout.dspy_adapter import signature_spec
from promptopt.layout.render import prefill_text, render_completion, render_messages
from promptopt.layout.signature import with_reasoning
from promptopt.records import ChatMessage, TrainingRow


@dataclass(frozen=True)
class DistilledRows:
    """Training rows, and what was left out.

    Attributes:
        rejected: rollouts that scored below the threshold, were undecided or did not parse.
        shown: rollouts whose example is a demo of the prompt itself; training on them would teach copying.
    """

    train: tuple[TrainingRow, ...]
    val: tuple[TrainingRow, ...]
    rejected: int
    shown: int


def distilled_rows(
    program: dspy.Module,
    candidate: Candidate,
    rollouts: Sequence[Rollout],
    min_score: float,
    val_share: float,
    row_share: float = 1.0,
    *,
    teacher: Candidate | None = None,
) -> DistilledRows:
    """Return the rollouts worth teaching as rows of the student's prompts under `candidate`.

    All rows of one example stand on one side of the split, chosen by the hash of the example's id. What `row_share`
    leaves out is chosen by that hash as well: a smaller share is part of a larger one.

    Args:
        row_share: share of the examples to train on that are kept; those to validate with are all kept.
        teacher: what a teacher reads in the candidate's place; its prompts stand in the rows.

    Raises:
        DataError: fewer than two rollouts are left, or all fall on one side.
    """
    signatures = _signatures(program, candidate)
    taught_by = None if teacher is None else (teacher, _signatures(program, teacher))
    kept = [item for item in rollouts if item.steps and item.score is not None and item.score >= min_score]
    shown = [candidate, *([teacher] if teacher is not None else [])]
    taught = [item for item in kept if not any(_is_shown(item, prompt) for prompt in shown)]
    used = [item for item in taught if _is_val(item.row_id, val_share) or _hashed("share", item.row_id) < row_share]
    sides: dict[bool, list[TrainingRow]] = {True: [], False: []}
    seen: set[tuple[object, ...]] = set()
    # Validation rows first: an inner predictor may meet the same text in several examples, and a text that validates
    # must not be trained on.
    for rollout in sorted(used, key=lambda item: not _is_val(item.row_id, val_share)):
        for number, step in enumerate(rollout.steps):
            row = _training_row(rollout, number, step, candidate, signatures)
            if taught_by is not None:
                row = row.model_copy(update={"teacher_prompt": _prompt(step, *taught_by)})
            if (row.prompt, row.completion) not in seen:
                seen.add((row.prompt, row.completion))
                sides[_is_val(rollout.row_id, val_share)].append(row)
    if not sides[True] or not sides[False]:
        raise DataError(
            f"Distillation kept {len(taught)} of {len(rollouts)} rollouts (min_score {min_score}): {len(sides[False])} "
            f"rows to train on and {len(sides[True])} to validate with; both must be at least 1. Give more rows, lower "
            "distill.min_score, or use `teacher: gold`."
        )
    return DistilledRows(tuple(sides[False]), tuple(sides[True]), len(rollouts) - len(kept), len(kept) - len(taught))


def _signatures(program: dspy.Module, candidate: Candidate) -> dict[str, type[dspy.Signature]]:
    """Return the predictors' signatures with the candidate's instructions."""
    applied = candidate.apply(program.deepcopy())
    return {name: predictor.signature for name, predictor in applied.named_predictors()}


def _training_row(
    rollout: Rollout,
    number: int,
    step: RolloutStep,
    candidate: Candidate,
    signatures: dict[str, type[dspy.Signature]],
) -> TrainingRow:
    layout = candidate.layout_of(step.predictor)
    spec = signature_spec(signatures[step.predictor])
    names = {field.name for field in with_reasoning(layout, spec).outputs}
    outputs = {name: value for name, value in step.outputs.items() if name in names}
    return TrainingRow(
        id=f"{rollout.row_id}-{number}",
        prompt=_prompt(step, candidate, signatures),
        completion=render_completion(layout, spec, outputs),
        prefill=prefill_text(layout, spec),
        source=rollout.source,
    )


def _prompt(
    step: RolloutStep, candidate: Candidate, signatures: dict[str, type[dspy.Signature]]
) -> tuple[ChatMessage, ...]:
    """Return the prompt of `step` under `candidate`, without the prefill that opens the answer."""
    layout = candidate.layout_of(step.predictor)
    spec = signature_spec(signatures[step.predictor])
    messages = render_messages(layout, spec, candidate.predictors[step.predictor].demos, step.inputs)
    if prefill_text(layout, spec):
        messages = messages[:-1]
    return tuple(ChatMessage.model_validate(message) for message in messages)


def _is_shown(rollout: Rollout, candidate: Candidate) -> bool:
    for step in rollout.steps:
        for demo in candidate.predictors[step.predictor].demos:
            if all(demo.get(name) == value for name, value in step.inputs.items()):
                return True
    return False


def _is_val(row_id: str, share: float) -> bool:
    return _hashed("distill", row_id) < share


def _hashed(purpose: str, row_id: str) -> float:
    """Return a number in [0, 1) that depends on both texts alone."""
    digest = hashlib.sha256(f"{purpose}:{row_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
