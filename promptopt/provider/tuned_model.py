"""One tuned model as files: trained, then made into what llama.cpp reads. Every step is kept; a killed one goes on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from promptopt.config.recipe import TrainingRecipe
from promptopt.finetune.base_folder import folder_hash
from promptopt.records import LossPoint, Quantization, Record, TrainingRow
from promptopt.rundir import RunDir, hash_inputs, read_json, write_json, write_jsonl

Serving = Literal["lora", "merged"]
LORA_GGUF = "lora.gguf"
_RECORD = "model.json"


class TunedModel(Record):
    """What is in a tuned model's folder; `gguf`, `lora` and `lora_dir` are relative to it.

    Attributes:
        base_gguf: the GGUF that was tuned; base_dir: the Hugging Face folder of those very weights.
        earlier_lora: folders, beside this one, of the LoRA weights that were on top of `base_gguf` already.
        gguf: the merged GGUF; None where `lora` goes on top of `base_gguf`.
        lora_dir: LoRA weights in PEFT's format.
    """

    name: str
    base_gguf: str
    base_dir: str
    earlier_lora: tuple[str, ...] = ()
    gguf: str | None = None
    lora: str | None = None
    lora_dir: str
    recipe: TrainingRecipe
    device: str
    train_rows: int
    val_rows: int
    best_eval_loss: float


@dataclass(frozen=True)
class Base:
    """What is tuned: a Hugging Face folder to train on, and how llama.cpp runs the same model."""

    hf_dir: Path
    gguf: Path
    lora: tuple[Path, ...] = ()


def run_key(base: Base, rows: Sequence[Sequence[TrainingRow]], recipe: TrainingRecipe, seed: int, serving: str) -> str:
    """Return the name of the folder of a run: everything that decides the weights and the files."""
    return hash_inputs(
        {
            "base": folder_hash(base.hf_dir),
            "gguf": base.gguf.name,
            "earlier_lora": [path.parent.name for path in base.lora],
            "rows": [[row.model_dump(mode="json") for row in side] for side in rows],
            "recipe": recipe.model_dump(mode="json"),
            "seed": seed,
            "serving": serving,
        }
    )


def read_tuned(folder: Path) -> TunedModel | None:
    """Return the finished model in `folder`; None where there is none."""
    path = folder / _RECORD
    return read_json(path, TunedModel) if path.exists() else None


def tune(
    name: str,
    folder: Path,
    base: Base,
    rows: tuple[Sequence[TrainingRow], Sequence[TrainingRow]],
    recipe: TrainingRecipe,
    seed: int,
    serving: Serving,
    quantization: Quantization,
    on_progress: Callable[[LossPoint, int], None] | None = None,
) -> TunedModel:
    """Train LoRA weights on `rows` (train, val) and make the file that llama.cpp reads; finished work is kept.

    Raises:
        ConfigError: another process is working in `folder`.
        TrainingError, ExportError: as `finetune`, `convert_lora` and `merge_lora`.
    """
    from promptopt.finetune.train import finetune

    with RunDir(folder).lock():
        done = read_tuned(folder)
        if done is not None and done.base_gguf == str(base.gguf):
            return done
        for side, kept in zip(("train", "val"), rows, strict=True):
            write_jsonl(folder / f"{side}.jsonl", tuple(kept))
        trained, files = folder / "finetune", (folder / "train.jsonl", folder / "val.jsonl")
        result = finetune(*files, base.hf_dir, recipe, trained, seed, on_progress)
        lora_dir = trained / result.lora_dir
        if serving == "lora":
            from promptopt.export.lora_gguf import convert_lora

            convert_lora(lora_dir, base.hf_dir, folder / LORA_GGUF)
            gguf, lora = None, LORA_GGUF
        else:
            gguf, lora = _merged_gguf(folder, base, lora_dir, recipe, result.device, quantization), None
        tuned = TunedModel(
            name=name, base_gguf=str(base.gguf), base_dir=str(base.hf_dir),
            earlier_lora=tuple(path.parent.name for path in base.lora), gguf=gguf, lora=lora,
            lora_dir=str(lora_dir.relative_to(folder)), recipe=recipe, device=result.device,
            train_rows=result.train_rows, val_rows=result.val_rows, best_eval_loss=result.best_eval_loss,
        )  # fmt: skip
        write_json(folder / _RECORD, tuned)
        return tuned


def base_of(folder: Path, tuned: TunedModel) -> Base:
    """Return a tuned model as what the next training starts from: its weights are merged, once."""
    from promptopt.export.merge import merge_lora

    merged = merge_lora(
        Path(tuned.base_dir), folder / tuned.lora_dir, folder / "merged", tuned.recipe.base_quantization,
        trained_on=tuned.device,
    )  # fmt: skip
    if tuned.gguf is not None:
        return Base(merged, folder / tuned.gguf)
    return Base(merged, Path(tuned.base_gguf), lora_files(folder, tuned))


def lora_files(folder: Path, tuned: TunedModel) -> tuple[Path, ...]:
    """Return the LoRA GGUFs that go on top of the base, oldest first."""
    own = () if tuned.lora is None else (folder / tuned.lora,)
    return (*(folder.parent / key / LORA_GGUF for key in tuned.earlier_lora), *own)


def _merged_gguf(
    folder: Path, base: Base, lora_dir: Path, recipe: TrainingRecipe, device: str, quantization: Quantization
) -> str:
    from promptopt.export.convert import convert_to_gguf
    from promptopt.export.merge import merge_lora
    from promptopt.export.quantize import quantize_gguf

    merged = merge_lora(base.hf_dir, lora_dir, folder / "merged", recipe.base_quantization, trained_on=device)
    f16 = convert_to_gguf(merged, folder / "tuned-f16.gguf", outtype="f16")
    if quantization == "f16":
        return Path(f16.path).name
    made = quantize_gguf(Path(f16.path), folder / f"tuned-{quantization}.gguf", quantization)
    return Path(made.path).name
