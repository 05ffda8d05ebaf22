"""The frozen base of a QLoRA run: loaded from a local folder, quantized, guarded.

QLoRA (Dettmers et al. 2023, arXiv 2305.14314): the base is stored in 4 bits with double quantization and dequantised at
every use; only LoRA weights are trained. On a CPU with memory to spare the dequantised values are kept instead of being
made anew in every forward and backward pass: the same function and the same gradients, without the repeated work.
"""

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from promptopt.errors import ModelError, TrainingError
from promptopt.extras import require
from promptopt.finetune.base_folder import check_base_folder, weight_files
from promptopt.finetune.linear4bit import check_guarded, guard_linear4bit

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Quantization4 = Literal["nf4", "fp4", "none"]
Residency = Literal["auto", "packed", "dequantised"]

_RESIDENT_SHARE_OF_MEMORY = 0.25
"""Dequantised weights are kept when they need less than this share of the machine's memory. Of the whole memory, not
of what is free at the moment: the same run on the same machine must decide the same when it goes on after a kill."""

logger = logging.getLogger(__name__)


@dataclass
class LoadedBase:
    """A base model that is ready to be wrapped in LoRA weights.

    Attributes:
        held: how it is held, for `FinetuneResult.base_quantization`, e.g. "nf4" or "nf4, dequantised in memory".
        device: "cpu" or "cuda".
    """

    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"
    held: str
    device: str


def training_device() -> str:
    """Return "cuda" where torch sees a GPU, else "cpu"."""
    return "cuda" if require("torch").cuda.is_available() else "cpu"


def resolve_residency(base_dir: Path, quantization: Quantization4, residency: Residency, device: str) -> Residency:
    """Return "packed" or "dequantised": what `auto` comes to on this machine. Unquantized bases are "packed"."""
    if quantization == "none":
        return "packed"
    if residency != "auto":
        return residency
    if device != "cpu":
        return "packed"
    # Stored weights are 2 or 4 bytes each; twice the stored size bounds what float32 needs.
    needed = 2 * sum(path.stat().st_size for path in weight_files(base_dir))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return "dequantised" if needed < _RESIDENT_SHARE_OF_MEMORY * memory else "packed"


def held_name(quantization: Quantization4, residency: Residency) -> str:
    """Return how the base is held, as `FinetuneResult.base_quantization` says it."""
    return f"{quantization}, dequantised in memory" if residency == "dequantised" else quantization


def load_tokenizer(base_dir: Path) -> "PreTrainedTokenizerBase":
    """Return the tokenizer in `base_dir`.

    Raises:
        ModelError: it cannot be read.
    """
    transformers = require("transformers")
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            str(base_dir), local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"The tokenizer in {base_dir} cannot be read: {error}. Copy the model again.") from error
    return cast("PreTrainedTokenizerBase", tokenizer)


def load_base(
    base_dir: Path,
    quantization: Quantization4 = "nf4",
    residency: Residency = "auto",
    device: str | None = None,
    tokenizer: "PreTrainedTokenizerBase | None" = None,
) -> LoadedBase:
    """Load the model in `base_dir`, frozen and in training mode; 4-bit layers are guarded (see `linear4bit`).

    What is not quantized (embeddings, norms, head) and all arithmetic is bfloat16 on CUDA and float32 on CPU.

    Args:
        quantization: 4-bit NF4 or FP4 with double quantization, or none.
        residency: `packed` keeps 4-bit weights, `dequantised` keeps the values they stand for, `auto` decides.
        device: "cpu" or "cuda"; None = CUDA where there is one.
        tokenizer: that of `base_dir`, where it is loaded already.

    Raises:
        ModelError: the folder is incomplete or its architecture is not supported by transformers.
        TrainingError: memory does not suffice.
    """
    check_base_folder(base_dir)
    torch = require("torch")
    device = device or training_device()
    residency = resolve_residency(base_dir, quantization, residency, device)
    model = _load_model(base_dir, quantization, torch.float32 if device == "cpu" else torch.bfloat16, device)
    guarded = guard_linear4bit(model) if quantization != "none" else 0
    if quantization != "none" and not guarded:
        raise ModelError(f"No layer of {base_dir} was quantized to 4 bits. Set finetune.base_quantization: none.")
    if residency == "dequantised":
        model = model.dequantize(dtype=torch.float32)
        if check_guarded(model):
            raise ModelError(f"4-bit layers are left in {base_dir} after dequantising. Train with residency packed.")
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    model.train()
    return LoadedBase(model, tokenizer or load_tokenizer(base_dir), held_name(quantization, residency), device)


def _load_model(base_dir: Path, quantization: Quantization4, dtype: Any, device: str) -> "PreTrainedModel":
    transformers = require("transformers")
    config = None
    if quantization != "none":
        require("bitsandbytes")
        config = transformers.BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=quantization,
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
    try:
        model = transformers.AutoModelForCausalLM.from_pretrained(
            str(base_dir),
            dtype=dtype,
            quantization_config=config,
            device_map={"": device},
            attn_implementation=_attention(transformers, device),
            local_files_only=True,
            trust_remote_code=False,
        )
    except (OSError, ValueError, KeyError, NotImplementedError) as error:
        raise ModelError(f"The model in {base_dir} cannot be loaded: {error}") from error
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            raise TrainingError(
                f"Loading {base_dir} ran out of {device} memory: {error}. Use finetune.base_quantization: nf4, a "
                "smaller model, or a machine with more memory."
            ) from error
        raise ModelError(f"The model in {base_dir} cannot be loaded: {error}") from error
    return cast("PreTrainedModel", model)


def _attention(transformers: Any, device: str) -> str | None:
    """Return FlashAttention's name where it is installed for the GPU; None lets transformers choose, which is SDPA."""
    flash = device == "cuda" and transformers.utils.is_flash_attn_2_available()
    return "flash_attention_2" if flash else None


def require_one_process() -> None:
    """Raise TrainingError under `accelerate launch` or torchrun with several processes.

    Each would clear the folder of the others, write the same files and decide for itself when to stop.
    """
    processes = os.environ.get("WORLD_SIZE", "1")
    if processes not in ("", "1"):
        raise TrainingError(
            f"This is one of {processes} processes (WORLD_SIZE), and a training runs in one. Start promptopt without "
            "`accelerate launch` or torchrun; set CUDA_VISIBLE_DEVICES to choose the GPU, and start a worker per GPU "
            "(`promptopt worker`) to use several."
        )


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether `error` means that memory of the GPU or of the machine ran out."""
    out_of_memory = require("torch").OutOfMemoryError
    return isinstance(error, (MemoryError, out_of_memory)) or "can't allocate memory" in str(error)


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Silence progress bars and notices of transformers, trl and datasets; the caller shows progress. Errors stay.

    FutureWarnings among them: TRL calls names that transformers is about to rename, which no user can act on.
    """
    from datasets.utils import logging as datasets_logging
    from transformers.utils import logging as transformers_logging

    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    dataset_bars = datasets_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    datasets_logging.disable_progress_bar()
    # Two training methods stand on TRL's experimental trainers, which warn at import; constraints.txt pins the version.
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    try:
        with warnings.catch_warnings():
            for module in ("transformers", "trl", "peft", "accelerate", "torch", "bitsandbytes"):
                for category in (FutureWarning, DeprecationWarning):
                    warnings.filterwarnings("ignore", category=category, module=module)
            yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()
        if dataset_bars:
            datasets_logging.enable_progress_bar()
