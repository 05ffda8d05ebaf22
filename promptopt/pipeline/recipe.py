"""The recipe of a run without gaps: what the experiment names, and what is chosen from its model and data."""

from collections.abc import Sequence

from pydantic import JsonValue

from promptopt.config.recipe import TrainingRecipe
from promptopt.config.recipe_defaults import ResolvedRecipe, TrainingFacts, resolve_recipe
from promptopt.finetune.base_model import resolve_residency
from promptopt.finetune.estimate import Machine
from promptopt.finetune.fitting import needs_checkpointing
from promptopt.finetune.model_shape import read_shape
from promptopt.finetune.this_machine import likely_device, this_machine
from promptopt.pipeline.context import RunContext
from promptopt.pipeline.lengths import row_lengths, training_rows
from promptopt.pipeline.prepare import read_split
from promptopt.records import DataRow
from promptopt.rundir import write_json


def recipe_of(context: RunContext) -> TrainingRecipe:
    """Return the recipe that this run trains with; chosen, said and written to recipe.json at the first call.

    The stage `data` must have finished.
    """
    if context.resolved is None:
        context.resolved = resolve(context, read_split(context, "train"), this_machine(likely_device(), measure=False))
        _tell(context, context.resolved)
    return context.resolved.recipe


def recipe_settings(context: RunContext) -> JsonValue:
    """Return what a stage that trains depends on: the resolved recipe, but not how it is fitted into memory."""
    settings: JsonValue = recipe_of(context).result_settings()
    return settings


def resolve(
    context: RunContext, train: Sequence[DataRow], machine: Machine, count: int | None = None
) -> ResolvedRecipe:
    """Return the recipe for data rows like `train` on `machine`.

    Args:
        count: training rows; None = those that `train` will come to.
    """
    shape, demos = read_shape(context.hf_dir), context.config.search.demos_per_set
    rows = row_lengths(context, train, count or training_rows(context, len(train)), demos)
    weights = context.config.search.weights
    facts = TrainingFacts(
        width=shape.hidden,
        parameters=shape.parameters,
        context=shape.context,
        rows=rows.rows,
        longest_row=rows.longest,
        needs_checkpointing=needs_checkpointing(
            shape, rows, machine, unpacked=lambda recipe: holds_unpacked(context, recipe, machine)
        ),
    )
    return resolve_recipe(context.config.finetune, facts, (weights.recipe if weights else None) or {})


def holds_unpacked(context: RunContext, recipe: TrainingRecipe, machine: Machine) -> bool:
    """Say whether `machine` would hold the values of 4-bit weights, if the base were in 4 bits, instead of the bits."""
    quantization = "nf4" if recipe.base_quantization == "none" else recipe.base_quantization
    return resolve_residency(context.hf_dir, quantization, "auto", machine.device) == "dequantised"


def _tell(context: RunContext, resolved: ResolvedRecipe) -> None:
    if resolved.reasons:
        context.progress.say("Recipe, where the experiment says nothing:")
    for line in resolved.lines():
        context.progress.say(f"  finetune.{line}")
    write_json(
        context.run.path / "recipe.json",
        {"recipe": resolved.recipe.model_dump(mode="json"), "reasons": dict(resolved.reasons)},
    )
