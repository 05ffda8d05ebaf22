"""`finetune`: rows and a base model in, the best LoRA weights and a record of the run out.

Method: QLoRA (Dettmers et al. 2023, arXiv 2305.14314) through TRL, PEFT and bitsandbytes; loss on completion tokens
only; optionally DFT (arXiv 2508.05629) and NEFTune (Jain et al. 2023, arXiv 2310.05914).

    out_dir/finetune_key.json   what was started, as a hash; other inputs start over
            checkpoints/        the newest and the best, to go on from after a kill
            lora/               the best LoRA weights, in PEFT's format
            result.json         FinetuneResult, written last
"""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from pydantic import ValidationError

from promptopt.config.recipe import TrainingRecipe
from promptopt.errors import TrainingError
from promptopt.extras import require
from promptopt.finetune.base_folder import check_base_folder, end_token_ids, file_hash, folder_hash
from promptopt.finetune.base_model import (
    Residency,
    is_out_of_memory,
    load_tokenizer,
    quiet_libraries,
    resolve_residency,
    training_device,
)
from promptopt.finetune.checkpoints import write_atomically
from promptopt.finetune.rows import TokenizedRows, check_no_leak, read_rows, tokenize_rows
from promptopt.finetune.selftest import run_selftest
from promptopt.records import FinetuneResult, LossPoint

RESULT = "result.json"
_KEY = "finetune_key.json"

logger = logging.getLogger(__name__)


def finetune(
    train_rows: Path,
    val_rows: Path,
    base_dir: Path,
    recipe: TrainingRecipe,
    out_dir: Path,
    seed: int,
    on_progress: Callable[[LossPoint, int], None] | None = None,
    *,
    residency: Residency = "auto",
    save_every_s: float = 60.0,
) -> FinetuneResult:
    """Train LoRA weights on `train_rows`; keep those with the lowest evaluation loss on `val_rows`.

    Started again with the same inputs it returns a finished result at once, and goes on from the last complete
    checkpoint of an unfinished one, to the same losses as an unbroken run on the same machine.

    Args:
        train_rows, val_rows: JSONL of `TrainingRow`s.
        base_dir: Hugging Face model folder; never written to.
        out_dir: gets `lora/`, `result.json` and `checkpoints/`.
        seed: of the initial LoRA weights, the order of rows, and dropout.
        on_progress: called with every new loss point and the number of all steps.
        residency: how a 4-bit base is held, see `base_model.load_base`.
        save_every_s: longest time between two checkpoints, in seconds.

    Raises:
        DataError: a row or file of rows is wrong. ModelError: the base is incomplete.
        TrainingError: a check on the rows failed, the 4-bit self-test failed, the loss diverged, or memory ran out.
        MissingExtraError: the `finetune` extra is not installed.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    check_base_folder(base_dir)
    train, val = read_rows(train_rows), read_rows(val_rows)
    check_no_leak(train, val)
    for module in ("torch", "transformers", "peft", "trl", "datasets", "accelerate"):
        require(module)
    device = training_device()
    residency = resolve_residency(base_dir, recipe.base_quantization, residency, device)
    key = _run_key(train_rows, val_rows, base_dir, recipe, seed, residency, device)
    finished = _open_run(out_dir, key)
    if finished is not None:
        return finished
    with quiet_libraries():
        tokenizer = load_tokenizer(base_dir)
        limit = _longest_row(recipe, base_dir)
        eos = tokenizer.eos_token_id
        end_ids = end_token_ids(base_dir, eos if isinstance(eos, int) else None)
        rows = tokenize_rows(train, tokenizer, limit, recipe.allowed_truncated_rows, end_ids)
        measured = tokenize_rows(val, tokenizer, limit, recipe.allowed_truncated_rows, end_ids)
        _require_selftest(recipe, device)
        result = _train_guarded(rows, measured, base_dir, recipe, out_dir, seed, on_progress, residency, save_every_s)
    write_atomically(out_dir / RESULT, result.model_dump_json(indent=2) + "\n")
    return result


def _train_guarded(
    rows: TokenizedRows,
    measured: TokenizedRows,
    base_dir: Path,
    recipe: TrainingRecipe,
    out_dir: Path,
    seed: int,
    on_progress: Callable[[LossPoint, int], None] | None,
    residency: Residency,
    save_every_s: float,
) -> FinetuneResult:
    """Train; turn a lack of memory into advice."""
    from promptopt.finetune.session import TrainingSession

    session = TrainingSession(base_dir, recipe, out_dir, seed, residency, save_every_s)
    try:
        return session.run(rows, measured, on_progress)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        message = (
            f"Memory ran out while training with batch_size {recipe.batch_size} and rows of up to "
            f"{max(len(row.input_ids) for row in rows.rows)} tokens: {str(error).splitlines()[0]} Halve "
            "finetune.batch_size and double finetune.gradient_accumulation (the same effective batch), set "
            "finetune.gradient_checkpointing: true, or use base_quantization: nf4. Training then starts over."
        )
    finally:
        session.release()
    raise TrainingError(message)


def _require_selftest(recipe: TrainingRecipe, device: str) -> None:
    if recipe.base_quantization == "none":
        return
    outcome = run_selftest(device, recipe.base_quantization)
    logger.info("4-bit self-test: %s (%.2f s)", outcome.detail, outcome.seconds)
    if not outcome.ok:
        raise TrainingError(
            f"The 4-bit self-test failed: {outcome.detail}. Training on would give wrong weights. Install the versions "
            "in constraints.txt, or set finetune.base_quantization: none."
        )


def _longest_row(recipe: TrainingRecipe, base_dir: Path) -> int:
    """Return the longest row in tokens: what the recipe allows, or the model's context where that is shorter."""
    config = json.loads((base_dir / "config.json").read_text(encoding="utf-8"))
    context = config.get("max_position_embeddings")
    if isinstance(context, int) and context < recipe.max_length:
        logger.info("Rows are limited to the model's context of %d tokens", context)
        return context
    return recipe.max_length


def _run_key(
    train_rows: Path, val_rows: Path, base_dir: Path, recipe: TrainingRecipe, seed: int, residency: str, device: str
) -> str:
    """Return a hash of everything that decides the weights. The device counts: its arithmetic does."""
    parts = {
        "train": file_hash(train_rows),
        "val": file_hash(val_rows),
        "base": folder_hash(base_dir),
        "recipe": recipe.model_dump(mode="json"),
        "seed": seed,
        "residency": residency,
        "device": device,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _open_run(out_dir: Path, key: str) -> FinetuneResult | None:
    """Return the finished result of a run with the same inputs, or None; clear away what other inputs left."""
    out_dir.mkdir(parents=True, exist_ok=True)
    recorded = out_dir / _KEY
    try:
        same = json.loads(recorded.read_text(encoding="utf-8")).get("sha256") == key
    except (OSError, ValueError, AttributeError):
        same = False
    if same:
        try:
            result = FinetuneResult.model_validate_json((out_dir / RESULT).read_text(encoding="utf-8"))
        except (OSError, ValidationError):
            return None
        return result if (out_dir / result.lora_dir).is_dir() else None
    (out_dir / RESULT).unlink(missing_ok=True)
    for name in ("checkpoints", "lora"):
        shutil.rmtree(out_dir / name, ignore_errors=True)
    write_atomically(recorded, json.dumps({"sha256": key}) + "\n")
    return None
