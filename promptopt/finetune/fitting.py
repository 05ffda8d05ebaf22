"""What to change in a recipe so that its training needs less memory, each change with what it would come to."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from promptopt.config.recipe import TrainingRecipe
from promptopt.finetune.estimate import Machine, RowLengths, TrainingEstimate, estimate_training
from promptopt.finetune.model_shape import ModelShape

SPARE = 0.92
"""Share of a machine's memory that a plan may fill: the rest is for what the estimate does not see."""


@dataclass(frozen=True)
class Change:
    """One way to change a recipe.

    Attributes:
        text: in the words of an experiment file.
        cost: what it costs beside time; empty where nothing.
    """

    text: str
    cost: str
    recipe: TrainingRecipe
    estimate: TrainingEstimate
    fits: bool


def fits(estimate: TrainingEstimate, machine: Machine, beside: float = 0.0) -> bool:
    """Say whether a training fits into `machine`, `beside` bytes of it being taken."""
    return estimate.bytes + beside <= SPARE * machine.memory_bytes


def possible_changes(
    shape: ModelShape,
    recipe: TrainingRecipe,
    rows: RowLengths,
    machine: Machine,
    *,
    unpacked: bool = False,
    beside: float = 0.0,
) -> list[Change]:
    """Return every change that lowers memory or time, one by one, and last all that lower memory together.

    Args:
        beside: bytes that something else holds meanwhile.
    """
    now = estimate_training(shape, recipe, rows, machine, unpacked=unpacked)

    def changed(text: str, cost: str, updates: dict[str, Any]) -> Change:
        other = recipe.model_copy(update=updates)
        found = estimate_training(shape, other, rows, machine, unpacked=unpacked)
        return Change(text, cost, other, found, fits(found, machine, beside))

    singles = [changed(*option) for option in _options(recipe, rows)]
    useful = [change for change in singles if change.estimate.bytes < now.bytes * 0.99]
    faster = [
        change
        for change in singles
        if change.recipe.packing and change not in useful and change.estimate.seconds < now.seconds * 0.95
    ]
    if len(useful) > 1:
        updates: dict[str, Any] = {}
        for change in useful:
            updates |= _differences(recipe, change.recipe)
        useful.append(changed("all of these", "", updates))
    return useful + faster


def _options(recipe: TrainingRecipe, rows: RowLengths) -> list[tuple[str, str, dict[str, Any]]]:
    options: list[tuple[str, str, dict[str, Any]]] = []
    if not recipe.gradient_checkpointing:
        options.append(("gradient_checkpointing: true", "a third more time", {"gradient_checkpointing": True}))
    if recipe.batch_size > 1:
        once = recipe.batch_size * recipe.gradient_accumulation
        options.append(
            (
                f"batch_size: 1, gradient_accumulation: {once}",
                "the same effective batch, in smaller steps",
                {"batch_size": 1, "gradient_accumulation": once},
            )
        )
    if recipe.base_quantization == "none":
        options.append(("base_quantization: nf4", "the base is rounded to 4 bits", {"base_quantization": "nf4"}))
    typical = 64 * math.ceil(1.5 * rows.mean / 64)
    longest = min(rows.longest, recipe.max_length)
    if typical < longest:
        options.append(
            (f"max_length: {typical}", "longer rows are left out (allowed_truncated_rows)", {"max_length": typical})
        )
    return options


def _differences(recipe: TrainingRecipe, other: TrainingRecipe) -> dict[str, Any]:
    before, after = recipe.model_dump(), other.model_dump()
    return {name: value for name, value in after.items() if value != before[name]}


def needs_checkpointing(
    shape: ModelShape, rows: RowLengths, machine: Machine, *, unpacked: Callable[[TrainingRecipe], bool]
) -> Callable[[TrainingRecipe], bool]:
    """Return what says whether a recipe fits into `machine` only with gradient checkpointing."""

    def needed(recipe: TrainingRecipe) -> bool:
        plain = recipe.model_copy(update={"gradient_checkpointing": False})
        return not fits(estimate_training(shape, plain, rows, machine, unpacked=unpacked(plain)), machine)

    return needed
