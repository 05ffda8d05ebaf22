"""`finetune_together`: several trainings on one base, in one forward and backward.

Most of a short training's time goes into the base, whose arithmetic is the same for every set of LoRA weights. Small
batches leave a processor idle; the batches of several trainings together do not. Whether that is faster here and now is
measured by `rule.gain_together`; what comes out is the same, up to rounding, and so are the files: a training that was
begun here goes on in `train.finetune`, and the other way round.
"""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from promptopt.config.recipe import TrainingRecipe
from promptopt.errors import DataError, TrainingError
from promptopt.finetune.base_model import Residency, is_out_of_memory, quiet_libraries
from promptopt.finetune.plan import OnProgress, TrainingPlan
from promptopt.finetune.resident import ResidentBase
from promptopt.finetune.run_folder import clear_run, finish_run, open_run
from promptopt.finetune.rungs import OnCheckpoint, RungJudge, require_measured
from promptopt.finetune.sources import read_source
from promptopt.finetune.together.prepared import Prepared
from promptopt.records import FinetuneResult

logger = logging.getLogger(__name__)

_OBEYED = frozenset(
    "base_quantization rank alpha rslora dropout target_modules learning_rate warmup_share weight_decay max_grad_norm "
    "neftune_noise epochs batch_size gradient_accumulation loss max_length allowed_truncated_rows eval_per_epoch "
    "patience best_by watched_rows gradient_checkpointing "
    # Decide what the rows are, before training.
    "student_instructions student_demos student_reasoning row_share min_score".split()
)


@dataclass(frozen=True)
class TrainingRequest:
    """One training; the fields are the arguments of `train.finetune`."""

    train_rows: Path
    val_rows: Path
    recipe: TrainingRecipe
    out_dir: Path
    seed: int
    on_progress: OnProgress | None = None
    on_checkpoint: OnCheckpoint | None = None


Outcome = FinetuneResult | TrainingError | DataError


def alone_because(recipe: TrainingRecipe) -> str:
    """Return why `recipe` cannot be trained beside others; empty where it can.

    A field that was added to the recipe and is not known here keeps a training alone, unless it has its default.
    """
    if recipe.packing:
        return "packing"
    fields = type(recipe).model_fields
    unknown = [
        name
        for name, field in fields.items()
        if name not in _OBEYED and getattr(recipe, name) != field.get_default(call_default_factory=True)
    ]
    return ", ".join(unknown)


def finetune_together(
    requests: Sequence[TrainingRequest],
    base_dir: Path,
    *,
    at_once: int | None = None,
    residency: Residency = "auto",
    save_every_s: float = 60.0,
    resident: ResidentBase | None = None,
) -> tuple[Outcome, ...]:
    """Train the LoRA weights of every request; keep of each those with the lowest evaluation loss.

    Recipes may differ in everything but `base_quantization`. Gradients are clipped, learning rates scheduled and
    losses evaluated for each training by itself; its rows, their order, its dropout and its noise do not depend on the
    others. One that ends, by its last step, its patience or its `on_checkpoint`, leaves the batch. Its losses are those
    of `finetune` up to rounding; only dropout and NEFTune draw other numbers.

    Killed and started again, finished trainings return at once, and every other one goes on from its own last complete
    checkpoint.

    Args:
        at_once: how many trainings share a batch; the next begins when one ends. None = all.
        residency, save_every_s, resident: as for `finetune`.

    Returns:
        For each request its result, or its error: rows that are wrong or do not fit, a loss that diverged, a
        checkpoint that could not be written. The other trainings go on.

    Raises:
        TrainingError: two requests share an `out_dir`, a recipe cannot be trained beside others, the base is another
            one than a recipe needs, memory ran out, or the base changed in memory.
        ModelError, MissingExtraError: as `finetune`. What `on_checkpoint` raises is raised here.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if not requests:
        return ()
    _check_requests(requests)
    quantization = requests[0].recipe.base_quantization
    plans = [
        TrainingPlan(
            one.train_rows, one.val_rows, base_dir, one.recipe, one.out_dir, one.seed, save_every_s, one.on_progress,
            RungJudge(one.on_checkpoint),
        )
        for one in requests
    ]  # fmt: skip
    if resident is not None:
        resident.require_fits(base_dir, quantization, residency)
        return _finetune(plans, resident, at_once)
    with ResidentBase(base_dir, quantization, residency) as base:
        return _finetune(plans, base, at_once)


def _check_requests(requests: Sequence[TrainingRequest]) -> None:
    folders = [one.out_dir.resolve() for one in requests]
    shared = next((folder for folder in folders if folders.count(folder) > 1), None)
    if shared is not None:
        raise TrainingError(f"Two trainings have the out_dir {shared}. Give each a folder of its own.")
    for one in requests:
        require_measured(one.recipe, one.on_checkpoint)
        reason = alone_because(one.recipe)
        if reason:
            raise TrainingError(
                f"The recipe for {one.out_dir} sets {reason}, which a training beside others does not know. Train it "
                "alone, with `finetune`."
            )
    kinds = sorted({one.recipe.base_quantization for one in requests})
    if len(kinds) > 1:
        raise TrainingError(
            f"Trainings on one base ask for base_quantization {' and '.join(kinds)}. Train each kind by itself."
        )


def _finetune(plans: Sequence[TrainingPlan], base: ResidentBase, at_once: int | None) -> tuple[Outcome, ...]:
    outcomes: dict[int, Outcome] = {}
    prepared: dict[int, Prepared] = {}
    with quiet_libraries():
        for number, plan in enumerate(plans):
            try:
                ready = _prepare(plan, base)
            except (TrainingError, DataError) as error:
                outcomes[number] = error
                continue
            if isinstance(ready, FinetuneResult):
                outcomes[number] = ready
            else:
                prepared[number] = ready
        if prepared:
            trained = _train(list(prepared.values()), base, at_once)
            outcomes.update(zip(prepared, trained, strict=True))
    if prepared:
        try:
            base.check()
        except TrainingError:
            for ready in prepared.values():
                clear_run(ready.plan.out_dir)
            raise
    for number, ready in prepared.items():
        outcome = outcomes[number]
        if isinstance(outcome, FinetuneResult):
            finish_run(ready.plan.out_dir, outcome)
    return tuple(outcomes[number] for number in range(len(plans)))


def _prepare(plan: TrainingPlan, base: ResidentBase) -> Prepared | FinetuneResult:
    """Return the training with its rows, or its result if it is finished already."""
    source = read_source(plan)
    finished = open_run(plan, base.base_hash, base.residency, base.device)
    if finished is not None:
        return finished
    return Prepared(plan, *source.tokenized(plan, base), source.method)


def _train(
    prepared: Sequence[Prepared], base: ResidentBase, at_once: int | None
) -> list[FinetuneResult | TrainingError]:
    """Train; turn a lack of memory into advice."""
    try:
        return _train_lent(prepared, base, at_once)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error) or any(ready.plan.judge.failure is error for ready in prepared):
            raise
        together = min(at_once or len(prepared), len(prepared))
        message = (
            f"Memory ran out while {together} trainings shared a batch: {str(error).splitlines()[0]} Train fewer at "
            "once, halve finetune.batch_size and double finetune.gradient_accumulation, or set "
            "finetune.gradient_checkpointing: true. Checkpoints are kept."
        )
    # Raised here, where the frames that hold the memory are gone.
    raise TrainingError(message)


def _train_lent(
    prepared: Sequence[Prepared], base: ResidentBase, at_once: int | None
) -> list[FinetuneResult | TrainingError]:
    from promptopt.finetune.together.loop import SharedTraining

    with base.lend() as loaded:
        return SharedTraining(loaded, prepared, base.end_ids, at_once).run()
