"""`finetune`: rows and a base model in, the best LoRA weights and a record of the run out.

Method: QLoRA (Dettmers et al. 2023, arXiv 2305.14314) through TRL, PEFT and bitsandbytes; loss on completion tokens
only; optionally DFT (arXiv 2508.05629) and NEFTune (Jain et al. 2023, arXiv 2310.05914).

    out_dir/finetune_key.json   what was started, as a hash; other inputs start over
            checkpoints/        the newest and the best, to go on from after a kill
            lora/               the best LoRA weights, in PEFT's format
            result.json         FinetuneResult, written last
"""

import os
from pathlib import Path

from promptopt.config.methods import Method
from promptopt.config.recipe import TrainingRecipe
from promptopt.errors import TrainingError
from promptopt.finetune.base_model import Residency, is_out_of_memory, quiet_libraries
from promptopt.finetune.plan import OnProgress, TrainingPlan
from promptopt.finetune.resident import ResidentBase
from promptopt.finetune.rows import TokenizedRows
from promptopt.finetune.run_folder import clear_run, finish_run, open_run
from promptopt.finetune.rungs import OnCheckpoint, RungJudge, require_measured
from promptopt.finetune.sources import read_source
from promptopt.finetune.trainer_args import check_trainer_args
from promptopt.records import FinetuneResult


def finetune(
    train_rows: Path,
    val_rows: Path,
    base_dir: Path,
    recipe: TrainingRecipe,
    out_dir: Path,
    seed: int,
    on_progress: OnProgress | None = None,
    *,
    residency: Residency = "auto",
    save_every_s: float = 60.0,
    resident: ResidentBase | None = None,
    on_checkpoint: OnCheckpoint | None = None,
    method: Method | None = None,
    start_from: Path | None = None,
) -> FinetuneResult:
    """Train LoRA weights on `train_rows`; keep those with the lowest evaluation loss on `val_rows`.

    Started again with the same inputs it returns a finished result at once, and goes on from the last complete
    checkpoint of an unfinished one, to the same losses as an unbroken run on the same machine.

    Args:
        train_rows, val_rows: JSONL of `TrainingRow`s; of `DocumentRow`s where the method is `Causal`.
        base_dir: Hugging Face model folder; never written to.
        out_dir: gets `lora/`, `result.json` and `checkpoints/`.
        seed: of the initial LoRA weights, the order of rows, and dropout.
        on_progress: called with every new loss point and the number of all steps.
        residency: how a 4-bit base is held, see `base_model.load_base`.
        save_every_s: longest time between two checkpoints, in seconds.
        resident: `base_dir` in memory, for many trainings; results are the same to the last bit. None loads it here.
        on_checkpoint: called at every evaluated checkpoint, the last one included; True stops training there, which
            then counts as finished. A `Judgement` may carry the task metric, for `recipe.best_by`. A run that goes on
            after a kill asks again about the checkpoint it goes on from. It may use the global random state; the
            training does not see it. What it raises is raised here.
        method: what is learned from the rows; None = their completions (`labels` or `sft`, as the rows say).
        start_from: folder of LoRA weights to go on with, of the same rank and layers; None = fresh ones.

    Raises:
        ConfigError: `recipe.trainer_args` has a name or value that cannot be passed on.
        DataError: a row or file of rows is wrong. ModelError: the base is incomplete.
        TrainingError: a check on the rows failed, the 4-bit self-test failed, the loss diverged, memory ran out, the
            resident base is another one than the recipe needs, or the base changed in memory.
        MissingExtraError: the `finetune` extra is not installed.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    require_measured(recipe, on_checkpoint)
    judge = RungJudge(on_checkpoint)
    plan = TrainingPlan(
        train_rows, val_rows, base_dir, recipe, out_dir, seed, save_every_s, on_progress, judge, method, start_from
    )
    check_trainer_args(recipe, "sft" if method is None else method.kind)
    if resident is not None:
        resident.require_fits(base_dir, recipe.base_quantization, residency)
        return _finetune(plan, resident)
    with ResidentBase(base_dir, recipe.base_quantization, residency) as base:
        return _finetune(plan, base)


def _finetune(plan: TrainingPlan, base: ResidentBase) -> FinetuneResult:
    source = read_source(plan)
    finished = open_run(plan, base.base_hash, base.residency, base.device)
    if finished is not None:
        return finished
    with quiet_libraries():
        rows, measured = source.tokenized(plan, base)
        kind = source.method if plan.method is None else plan.method.kind
        result = _train(plan, base, rows, measured, kind)
    try:
        base.check()
    except TrainingError:
        clear_run(plan.out_dir)
        raise
    finish_run(plan.out_dir, result)
    return result


def _train(
    plan: TrainingPlan, base: ResidentBase, rows: TokenizedRows, measured: TokenizedRows, kind: str
) -> FinetuneResult:
    """Train; turn a lack of memory into advice."""
    try:
        return _train_lent(plan, base, rows, measured, kind)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error) or plan.judge.failure is error:
            raise
        message = (
            f"Memory ran out while training with batch_size {plan.recipe.batch_size} and rows of up to "
            f"{max(row.length for row in rows.rows)} tokens: {str(error).splitlines()[0]} Halve "
            "finetune.batch_size and double finetune.gradient_accumulation (the same effective batch), set "
            "finetune.gradient_checkpointing: true, or use base_quantization: nf4. Training then starts over."
        )
    # Raised here, where the frames that hold the trainer's memory are gone.
    raise TrainingError(message)


def _train_lent(
    plan: TrainingPlan, base: ResidentBase, rows: TokenizedRows, measured: TokenizedRows, kind: str
) -> FinetuneResult:
    from promptopt.finetune.session import TrainingSession

    with base.lend() as loaded:
        return TrainingSession(loaded, plan, rows, measured, base.end_ids, kind).run()
