"""The folder of one training: what was started there, whether it is finished, and its result. Knows files, no model."""

import hashlib
import json
import shutil
from pathlib import Path

from pydantic import ValidationError

from promptopt.finetune.base_folder import file_hash, folder_hash
from promptopt.finetune.checkpoints import write_atomically
from promptopt.finetune.plan import TrainingPlan
from promptopt.records import FinetuneResult

RESULT = "result.json"
_KEY = "finetune_key.json"
_ELSEWHERE = {"recipe", "seed", "where", "rows", "documents", "text_field", "val_share", "teacher"}
"""Fields of a training stage that other parts of the key say: what data they chose, which recipe they changed."""


def open_run(plan: TrainingPlan, base_hash: str, residency: str, device: str) -> FinetuneResult | None:
    """Return the finished result of a run with the same inputs, or None; clear away what other inputs left."""
    out_dir, key = plan.out_dir, _run_key(plan, base_hash, residency, device)
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
    clear_run(out_dir)
    write_atomically(recorded, json.dumps({"sha256": key}) + "\n")
    return None


def _run_key(plan: TrainingPlan, base_hash: str, residency: str, device: str) -> str:
    """Return a hash of everything that decides the weights. The device counts: its arithmetic does."""
    teacher = getattr(plan.method, "teacher", None)
    parts = {
        "train": file_hash(plan.train_rows),
        "val": file_hash(plan.val_rows),
        "base": base_hash,
        "recipe": plan.recipe.model_dump(mode="json"),
        "seed": plan.seed,
        "residency": residency,
        "device": device,
        "method": None if plan.method is None else plan.method.model_dump(mode="json", exclude=_ELSEWHERE),
        "start_from": None if plan.start_from is None else file_hash(plan.start_from / "adapter_model.safetensors"),
        "teacher": None if teacher is None else folder_hash(Path(teacher).expanduser()),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def clear_run(out_dir: Path) -> None:
    """Delete everything that a training wrote, so that the next one starts over."""
    (out_dir / RESULT).unlink(missing_ok=True)
    for name in ("checkpoints", "lora"):
        shutil.rmtree(out_dir / name, ignore_errors=True)


def finish_run(out_dir: Path, result: FinetuneResult) -> None:
    """Declare the run finished."""
    write_atomically(out_dir / RESULT, result.model_dump_json(indent=2) + "\n")
