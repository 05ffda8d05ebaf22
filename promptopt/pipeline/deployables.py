"""What lies beside the GGUFs of the stage `export`: LoRA weights in both formats, a Modelfile, the merged HF folder."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from promptopt.deploy.gguf_programs import gguf_program
from promptopt.deploy.modelfile import modelfile
from promptopt.errors import ExportError
from promptopt.lm.gguf_program import GgufProgram
from promptopt.lm.llama_cpp.facade import LlamaCpp
from promptopt.pipeline.context import RunContext
from promptopt.pipeline.prompts import student_of
from promptopt.records import AnswerSettings, GgufModel
from promptopt.rundir import write_json, write_text

LORA_FOLDER, LORA_GGUF, MODELFILE, MERGED = "lora", "lora.gguf", "Modelfile", "merged"
_LORA_CONFIG = "adapter_config.json"


@dataclass(frozen=True)
class SideFiles:
    """What was written beside the GGUFs.

    Attributes:
        lora: the LoRA GGUF; None where llama.cpp could not apply it.
        left_out: file name -> why it is not there.
    """

    lora: GgufModel | None
    left_out: dict[str, str]


def carried_program(context: RunContext) -> GgufProgram:
    """Return what the exported GGUFs carry."""
    config = context.config
    return gguf_program(
        context.program, student_of(context), answer_settings(context), path=config.program, experiment=config.name
    )


def answer_settings(context: RunContext) -> AnswerSettings:
    """Return how the model is asked when it is measured."""
    lm = context.config.lm
    return AnswerSettings(
        n_ctx=lm.n_ctx, max_tokens=lm.max_tokens, temperature=lm.temperature, seed=context.config.seed
    )


def write_side_files(context: RunContext, f16: Path, lora_dir: Path, hf_dir: Path, deployed: str) -> SideFiles:
    """Write `lora/`, `lora.gguf` and `Modelfile` beside the GGUFs; what cannot be written is said, not fatal.

    Args:
        f16: the GGUF that all others are made from; it is loaded, for its vocabulary.
        lora_dir: the LoRA weights that were merged.
        hf_dir: the base.
        deployed: name of the GGUF to serve.
    """
    from promptopt.export.lora_gguf import convert_lora

    left_out: dict[str, str] = {}
    folder = f16.parent
    _copy_lora(lora_dir, folder / LORA_FOLDER, hf_dir.name)
    lora = None
    try:
        made = convert_lora(lora_dir, hf_dir, folder / LORA_GGUF)
        lora = made.model_copy(update={"path": LORA_GGUF})
    except ExportError as error:
        left_out[LORA_GGUF] = str(error)
    try:
        write_text(folder / MODELFILE, _modelfile(context, context.lm(f16), deployed))
    except ExportError as error:
        (folder / MODELFILE).unlink(missing_ok=True)
        left_out[MODELFILE] = str(error)
    for name, reason in left_out.items():
        context.progress.say(f"{name} is left out: {reason}")
    return SideFiles(lora, left_out)


def drop_merged_weights(merged: Path) -> None:
    """Remove the weights of the merged HF folder; its tokenizer stays, for the proof of parity on test prompts."""
    from promptopt.export.merge import RECORD_NAME

    # The record goes first: killed in between, the next run sees that the folder is not whole, and merges again.
    (merged / RECORD_NAME).unlink(missing_ok=True)
    for file in merged.glob("*.safetensors*"):
        file.unlink()


def _modelfile(context: RunContext, lm: LlamaCpp, deployed: str) -> str:
    model = lm.chat.model
    return modelfile(
        deployed, model.info, model.vocabulary.special_tokens(), carried_program(context), answer_settings(context)
    )


def _copy_lora(source: Path, target: Path, base_name: str) -> None:
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
    config = json.loads((target / _LORA_CONFIG).read_text(encoding="utf-8"))
    # PEFT notes the folder of the base on this machine, which says nothing to anyone else.
    write_json(target / _LORA_CONFIG, {**config, "base_model_name_or_path": base_name})
