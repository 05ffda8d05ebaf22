"""A recipe in the words of TRL: the one place that knows the argument names of its trainers."""

from pathlib import Path
from typing import Any, TypeVar

from transformers import TrainingArguments
from trl.trainer.sft_config import SFTConfig

from promptopt.config.methods import OnPolicy, SelfDistill
from promptopt.config.recipe import TrainingRecipe
from promptopt.finetune.trainer_args import config_class, values_for

_Arguments = TypeVar("_Arguments", bound=TrainingArguments)


def sft_arguments(
    recipe: TrainingRecipe,
    output_dir: Path,
    seed: int,
    device: str,
    longest_row: int,
    *,
    fresh: bool,
    packed: bool | None = None,
) -> SFTConfig:
    """Return the arguments of `SFTTrainer`.

    Args:
        output_dir: gets the checkpoints.
        longest_row: in tokens.
        fresh: whether training starts at step 0, which is evaluated then.
        packed: whether rows are packed to `recipe.max_length`, as documents always are; None = as the recipe says.
    """
    packed = recipe.packing if packed is None else packed
    values = {
        **_common(recipe, output_dir, seed, device, fresh=fresh),
        "loss_type": recipe.loss,
        "completion_only_loss": False,  # labels are given
        "packing": packed,
        "packing_strategy": "bfd",
        "eval_packing": False,
        "max_length": max(longest_row, recipe.max_length if packed else 0),
        "dataset_kwargs": {"skip_prepare_dataset": not packed},
    }
    if packed and device == "cpu":
        # TRL lays the packed rows of a batch behind each other, and attention without a kernel for that computes every
        # pair of their tokens: some three times the time of the same rows one by one. The effective batch stays.
        values["per_device_train_batch_size"] = 1
        values["gradient_accumulation_steps"] = recipe.batch_size * recipe.gradient_accumulation
    return _on_one_gpu(SFTConfig(**{**values, **values_for(recipe, SFTConfig)}))


def self_distill_arguments(
    recipe: TrainingRecipe, output_dir: Path, seed: int, device: str, method: SelfDistill, answer: int, *, fresh: bool
) -> Any:
    """Return the arguments of `SDFTTrainer`: one sampled answer per row, of at most `answer` tokens.

    Answers are sampled anew for every batch, so that a checkpoint holds no half-used ones.
    """
    config = config_class("self_distill")
    values = {
        **_common(recipe, output_dir, seed, device, fresh=fresh),
        "num_generations": 1,
        "steps_per_generation": 1,
        "max_prompt_length": None,
        "max_completion_length": answer,
        "temperature": method.temperature,
        "distillation_alpha": method.divergence,
        "teacher_model_kind": "base",
    }
    return _on_one_gpu(config(**{**values, **values_for(recipe, config)}))


def on_policy_arguments(
    recipe: TrainingRecipe, output_dir: Path, seed: int, device: str, method: OnPolicy, answer: int, *, fresh: bool
) -> Any:
    """Return the arguments of `GKDTrainer`; sampled answers have at most `answer` tokens."""
    config = config_class("on_policy")
    values = {
        **_common(recipe, output_dir, seed, device, fresh=fresh),
        "max_length": None,
        "max_new_tokens": answer,
        "temperature": method.temperature,
        "beta": method.divergence,
        "lmbda": method.student_share,
    }
    return _on_one_gpu(config(**{**values, **values_for(recipe, config)}))


def optimizer_name(recipe: TrainingRecipe, device: str) -> str:
    """Return TRL's name of the optimizer: AdamW, for 4-bit bases on CUDA with 8-bit states that can leave the GPU.

    Paged states: Dettmers et al. 2023, arXiv 2305.14314. 8-bit states: Dettmers et al. 2021, arXiv 2110.02861;
    bitsandbytes keeps those of small tensors in 32 bits.
    """
    return "paged_adamw_8bit" if device == "cuda" and recipe.base_quantization != "none" else "adamw_torch"


def _common(recipe: TrainingRecipe, output_dir: Path, seed: int, device: str, *, fresh: bool) -> dict[str, Any]:
    return {
        "output_dir": str(output_dir),
        "seed": seed,
        "data_seed": seed,
        "use_cpu": device == "cpu",
        "bf16": device == "cuda",
        "fp16": False,
        "num_train_epochs": recipe.epochs,
        "per_device_train_batch_size": recipe.batch_size,
        "per_device_eval_batch_size": recipe.batch_size,
        "gradient_accumulation_steps": recipe.gradient_accumulation,
        "gradient_checkpointing": recipe.gradient_checkpointing,
        "learning_rate": recipe.learning_rate,
        "lr_scheduler_type": "linear",
        "warmup_steps": recipe.warmup_share,
        "weight_decay": recipe.weight_decay,
        "max_grad_norm": recipe.max_grad_norm,
        "neftune_noise_alpha": recipe.neftune_noise,
        "optim": optimizer_name(recipe, device),
        # Evaluations and checkpoints are asked for by RunCallback; the loss before training is the first point.
        "eval_strategy": "no",
        "save_strategy": "no",
        "eval_on_start": fresh,
        "logging_strategy": "steps",
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "report_to": "none",
        "push_to_hub": False,
        "disable_tqdm": True,
        "dataloader_num_workers": 0,
        "dataloader_pin_memory": device == "cuda",
        "remove_unused_columns": False,
    }


def _on_one_gpu(arguments: _Arguments) -> _Arguments:
    if arguments.n_gpu > 1:
        # The Trainer multiplies the batch by the GPUs it sees, though the base lies on one of them.
        arguments._n_gpu = 1
    return arguments
