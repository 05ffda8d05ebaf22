"""What an experiment would take, before any model is loaded: memory, time, and what to change where it does not fit."""

from collections.abc import Sequence
from dataclasses import dataclass

from promptopt.config.recipe_defaults import ResolvedRecipe
from promptopt.data.loaders import load_rows
from promptopt.data.splits import split_rows
from promptopt.finetune.estimate import Machine, RowLengths, TrainingEstimate, estimate_training
from promptopt.finetune.fitting import Change, fits, possible_changes
from promptopt.finetune.model_shape import ModelShape, read_shape
from promptopt.pipeline.context import RunContext
from promptopt.pipeline.fields import check_fields
from promptopt.pipeline.lengths import row_lengths, training_rows
from promptopt.pipeline.recipe import holds_unpacked, resolve
from promptopt.pipeline.searching import searches_weights
from promptopt.pipeline.serving_plan import SearchPlan, plan_search
from promptopt.records import DataRow


@dataclass(frozen=True)
class ExperimentPlan:
    """What an experiment would take on a machine.

    Attributes:
        rows: of a training on prompts without demos; with_demos: with as many as the search may show.
        training: of one training without demos; crowded: with demos, the most it may take.
        unpacked: whether 4-bit weights are held as the values they stand for.
        beside: bytes that llama.cpp holds while a study trains.
        fits: whether `training` fits, with llama.cpp beside it.
        changes: what would lower memory or time.
    """

    machine: Machine
    shape: ModelShape
    resolved: ResolvedRecipe
    rows: RowLengths
    training: TrainingEstimate
    crowded: TrainingEstimate
    unpacked: bool
    search: SearchPlan
    beside: float
    fits: bool
    changes: tuple[Change, ...]


def plan_experiment(context: RunContext, machine: Machine, here: bool, rows: int | None = None) -> ExperimentPlan:
    """Return what the experiment of `context` would take on `machine`.

    Args:
        here: whether `machine` is this one.
        rows: training rows; None = what data and `distill` come to.

    Raises:
        StageError: the model is a GGUF alone.
        DataError, ConfigError, ModelError: a file or field is missing or wrong.
    """
    check_fields(context)
    train = _train_rows(context)
    count = rows or training_rows(context, len(train))
    shape = read_shape(context.hf_dir)
    resolved = resolve(context, train, machine, count)
    recipe, demos = resolved.recipe, context.config.search.demos_per_set
    lengths, longer = row_lengths(context, train, count), row_lengths(context, train, count, demos)
    unpacked = holds_unpacked(context, recipe, machine)
    training = estimate_training(shape, recipe, lengths, machine, unpacked=unpacked)
    search = plan_search(context, shape, lengths, machine, here)
    # The training process of a study holds both; llama.cpp on a CPU leaves a card alone.
    same = machine.device == "cpu" or context.config.lm.n_gpu_layers != 0
    beside = search.bytes if same and searches_weights(context) else 0.0
    return ExperimentPlan(
        machine=machine,
        shape=shape,
        resolved=resolved,
        rows=lengths,
        training=training,
        crowded=estimate_training(shape, recipe, longer, machine, unpacked=unpacked),
        unpacked=unpacked,
        search=search,
        beside=beside,
        fits=fits(training, machine, beside),
        changes=tuple(possible_changes(shape, recipe, lengths, machine, unpacked=unpacked, beside=beside)),
    )


def _train_rows(context: RunContext) -> Sequence[DataRow]:
    return split_rows(load_rows(context.config.data), context.config.data).train
