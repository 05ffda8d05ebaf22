"""Finds the files of an experiment's model: the Hugging Face folder to train on, the GGUF to search with."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from promptopt.config.experiment import ExperimentConfig, LocalModel
from promptopt.errors import ModelError
from promptopt.finetune.base_folder import check_base_folder, folder_hash
from promptopt.finetune.chat_template import with_chat_template
from promptopt.lm.fingerprint import file_sha256
from promptopt.records import GgufModel, Quantization
from promptopt.starter.locate import starter_dir
from promptopt.user_cache import user_cache_dir


@dataclass(frozen=True)
class ModelSource:
    """Where a model comes from.

    Attributes:
        hf_dir: folder in Hugging Face format; None for a model that exists only as GGUF and cannot be trained.
        gguf: a GGUF the user brought; None = made from `hf_dir`.
    """

    hf_dir: Path | None
    gguf: Path | None

    def identity(self) -> dict[str, str]:
        """Return what tells this model from another: hashes of the files that decide what it says."""
        identity = {"hf": folder_hash(self.hf_dir)} if self.hf_dir else {}
        return {**identity, "gguf": file_sha256(self.gguf)} if self.gguf else identity


def model_source(config: ExperimentConfig) -> ModelSource:
    """Return the model files that `config` names.

    Raises:
        ModelError: a file or folder is missing.
    """
    if not isinstance(config.model, LocalModel):
        return ModelSource(starter_dir(), None)
    hf_dir = Path(config.model.hf_dir).expanduser() if config.model.hf_dir else None
    gguf = Path(config.model.gguf).expanduser() if config.model.gguf else None
    if hf_dir and not (hf_dir / "config.json").is_file():
        raise ModelError(
            f"model.hf_dir {str(hf_dir)!r} is no Hugging Face model folder: it has no config.json. Give a folder with "
            "config.json, safetensors and tokenizer files; `promptopt models` lists those at hand."
        )
    if gguf and not gguf.is_file():
        raise ModelError(f"model.gguf {str(gguf)!r} does not exist. `promptopt models` lists the GGUF files at hand.")
    if hf_dir and config.model.chat_template is not None:
        hf_dir = _with_template(hf_dir, config.model.chat_template)
    return ModelSource(hf_dir, gguf)


def _with_template(hf_dir: Path, template: str) -> Path:
    check_base_folder(hf_dir)
    name = hashlib.sha256(f"{hf_dir.resolve()} {template}".encode()).hexdigest()[:16]
    # The folder's own name stays: model cards and LoRA weights name their base by it.
    return with_chat_template(hf_dir, template, user_cache_dir() / "templated" / name / hf_dir.resolve().name)


def make_gguf(hf_dir: Path, folder: Path, quantization: Quantization, stem: str) -> GgufModel:
    """Export `hf_dir` to `folder/<stem>-<quantization>.gguf` (and the f16 file it is quantized from).

    Returns:
        The GGUF at `quantization`; a file that is already there is taken as it is, because writers are atomic.
    """
    from promptopt.export.convert import convert_to_gguf
    from promptopt.export.quantize import quantize_gguf

    folder.mkdir(parents=True, exist_ok=True)
    f16 = folder / f"{stem}-f16.gguf"
    made = convert_to_gguf(hf_dir, f16, outtype="f16")
    if quantization == "f16":
        return made
    return quantize_gguf(f16, folder / f"{stem}-{quantization}.gguf", quantization)


def starter_gguf(quantization: Quantization = "q8_0") -> Path:
    """Return the starter model as a GGUF file, made by the project's own export at first use, kept in the user's cache.

    Needs the extras `export` and `llama-cpp`.
    """
    with (starter_dir() / "model.safetensors").open("rb") as weights:
        stamp = hashlib.file_digest(weights, "sha256").hexdigest()[:12]
    folder = user_cache_dir() / "models" / f"starter-{stamp}"
    path = folder / f"starter-{quantization}.gguf"
    return path if path.exists() else Path(make_gguf(starter_dir(), folder, quantization, "starter").path)
