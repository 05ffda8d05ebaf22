"""LoRA weights: which layers get them, with what, and how they reach the disk. Knows PEFT, no trainer.

LoRA: Hu et al. 2021, arXiv 2106.09685. rsLoRA scales by alpha / sqrt(rank): Kalajdzievski 2023, arXiv 2312.03732.
"""

import copy
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file, save_file

from promptopt.config.recipe import TrainingRecipe
from promptopt.errors import TrainingError
from promptopt.finetune.trainer_args import values_for

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_TARGETS = {
    "attention": ("q_proj", "k_proj", "v_proj", "o_proj", "qkv_proj", "out_proj", "dense"),
    "mlp": ("gate_proj", "up_proj", "down_proj", "gate_up_proj", "fc1", "fc2"),
}
"""Layer names in Llama, Mistral, Qwen, Gemma, Phi. A model has some of them."""

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
DEFAULT_SET = "default"
"""What PEFT calls the only LoRA weights of a model."""


def add_lora(model: "PreTrainedModel", recipe: TrainingRecipe, seed: int, start_from: Path | None = None) -> Any:
    """Return `model` wrapped in float32 LoRA weights.

    Args:
        seed: of fresh weights; the model's output is unchanged at first.
        start_from: folder of LoRA weights to go on with.

    Raises:
        TrainingError: the model has none of the layers that `recipe.target_modules` means, or the weights to go on with
            are of other layers or another rank.
    """
    torch.manual_seed(seed)
    wrapped = get_peft_model(model, lora_config(model, recipe))
    if start_from is not None:
        _check_fits(wrapped, start_from)
        load_weights(wrapped, start_from)
    return wrapped


def lora_config(model: "PreTrainedModel", recipe: TrainingRecipe) -> LoraConfig:
    """Return what PEFT needs to know of `recipe`, for `model`, which has no LoRA weights yet.

    Raises:
        TrainingError: the model has none of the layers that `recipe.target_modules` means.
    """
    return LoraConfig(
        r=recipe.rank,
        lora_alpha=cast(Any, recipe.alpha),  # annotated int, only ever divided
        use_rslora=recipe.rslora,
        lora_dropout=recipe.dropout,
        target_modules=_target_modules(model, recipe.target_modules),
        bias="none",
        task_type="CAUSAL_LM",
        **values_for(recipe, LoraConfig),
    )


def _check_fits(model: Any, folder: Path) -> None:
    """Raise TrainingError unless the weights in `folder` are of the same layers and shapes as those of `model`."""
    wanted = {name: tuple(value.shape) for name, value in get_peft_model_state_dict(model).items()}
    found = {name: tuple(value.shape) for name, value in load_file(str(folder / WEIGHTS)).items()}
    kept = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    config = model.peft_config[model.active_adapter]
    scales = (config.lora_alpha, config.use_rslora), (kept["lora_alpha"], kept["use_rslora"])
    if wanted != found or scales[0] != scales[1]:
        odd = sorted(name for name in {*wanted, *found} if wanted.get(name) != found.get(name))
        raise TrainingError(
            f"The LoRA weights in {folder} do not fit this recipe (rank, alpha, rslora or layers differ; first at "
            f"{odd[0] if odd else 'the scale'}). Stages that go on from each other need the same ones: set them under "
            "`finetune`, for all stages."
        )


def _target_modules(model: "PreTrainedModel", wanted: str) -> str | list[str]:
    if wanted == "all-linear":
        return wanted
    present = {name.rsplit(".", 1)[-1] for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    found = sorted(present & set(_TARGETS[wanted]))
    if not found:
        raise TrainingError(
            f"finetune.target_modules is {wanted!r}, but the model has none of {sorted(_TARGETS[wanted])}; its linear "
            f"layers are {sorted(present)}. Use target_modules: all-linear."
        )
    return found


def trainable_values(model: Any) -> dict[str, torch.Tensor]:
    """Return copies of the trainable weights, by name."""
    return {name: value.detach().clone() for name, value in model.named_parameters() if value.requires_grad}


def trainable_count(model: Any) -> int:
    """Return how many numbers are trained."""
    return sum(int(value.numel()) for value in model.parameters() if value.requires_grad)


def restore_values(model: Any, values: dict[str, torch.Tensor]) -> None:
    """Give the trainable weights back the values and the dtype they had.

    TRL casts the LoRA weights of a 4-bit model to bfloat16, in which small Adam updates are rounded away.
    """
    for name, value in model.named_parameters():
        if value.requires_grad:
            value.data = values[name]


def save_weights(model: Any, folder: Path, name: str = DEFAULT_SET) -> None:
    """Write the LoRA weights called `name` of the wrapped `model` to `folder`, and the config that names their base.

    As PEFT's own `save_pretrained` does, without the model card, which takes longer than small weights.
    """
    folder.mkdir(parents=True, exist_ok=True)
    values = get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False)
    save_file({key: value.contiguous() for key, value in values.items()}, folder / WEIGHTS, {"format": "pt"})
    config = copy.copy(model.peft_config[name])
    config.inference_mode = True
    config.save_pretrained(str(folder))


def load_weights(model: Any, folder: Path, name: str = DEFAULT_SET) -> None:
    """Put the LoRA weights in `folder` into those called `name` of the wrapped `model`."""
    set_peft_model_state_dict(model, load_file(str(folder / WEIGHTS)), adapter_name=name)


def publish_weights(checkpoint: Path, target: Path) -> None:
    """Copy the LoRA weights of a complete checkpoint to `target`: written beside it, then renamed."""
    temporary = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    for name in (WEIGHTS, CONFIG):
        shutil.copyfile(checkpoint / name, temporary / name)
    shutil.rmtree(target, ignore_errors=True)
    temporary.rename(target)
