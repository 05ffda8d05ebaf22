"""Arguments of TRL's trainers and of PEFT's `LoraConfig` that a recipe passes on by name, and which of them it may not.

Whatever promptopt sets itself has a field of the recipe or the experiment, so that a value is said in one place; what
would send data away, run foreign code, or break a promise (exact resumption, a LoRA GGUF that says the same) is
refused.
"""

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterable
from tempfile import gettempdir
from typing import Any

from promptopt.config.methods import MethodKind
from promptopt.config.recipe import TrainingRecipe
from promptopt.errors import ConfigError
from promptopt.extras import require
from promptopt.finetune.base_model import quiet_libraries

_FIELD_OF = {
    "learning_rate": "finetune.learning_rate", "num_train_epochs": "finetune.epochs", "max_steps": "finetune.epochs",
    "per_device_train_batch_size": "finetune.batch_size", "per_device_eval_batch_size": "finetune.batch_size",
    "auto_find_batch_size": "finetune.batch_size", "gradient_accumulation_steps": "finetune.gradient_accumulation",
    "warmup_steps": "finetune.warmup_share", "weight_decay": "finetune.weight_decay",
    "max_grad_norm": "finetune.max_grad_norm", "neftune_noise_alpha": "finetune.neftune_noise",
    "loss_type": "finetune.loss", "packing": "finetune.packing", "max_length": "finetune.max_length",
    "gradient_checkpointing": "finetune.gradient_checkpointing",
    "activation_checkpointing": "finetune.gradient_checkpointing", "eval_steps": "finetune.eval_per_epoch",
    "eval_strategy": "finetune.eval_per_epoch", "seed": "seed", "data_seed": "seed",
    "r": "finetune.rank", "lora_alpha": "finetune.alpha", "use_rslora": "finetune.rslora",
    "lora_dropout": "finetune.dropout", "target_modules": "finetune.target_modules",
    "chat_template_path": "model.chat_template", "eos_token": "training.end_of_text (kind: causal)",
    "lmbda": "training.student_share", "beta": "training.divergence", "distillation_alpha": "training.divergence",
    "temperature": "training.temperature", "max_new_tokens": "training.max_answer_tokens",
    "max_completion_length": "training.max_answer_tokens", "max_prompt_length": "finetune.max_length",
    "teacher_model_name_or_path": "training.teacher", "teacher_model_kind": "training.kind",
}  # fmt: skip
"""Argument -> what to write instead."""

_UNSAFE = (
    "trust_remote_code", "model_init_kwargs", "teacher_model_init_kwargs", "push_to_hub", "hub_", "report_to",
    "run_name", "project", "trackio_", "use_vllm", "vllm_", "use_teacher_server", "resume_from_checkpoint",
)  # fmt: skip
"""Beginnings of names. They would run code from a model's folder, send data away, or read pickled files."""

_OWN = (
    "output_dir", "save_", "logging_", "log_", "disable_tqdm", "load_best_model_at_end", "metric_for_best_model",
    "greater_is_better", "eval_", "do_", "prediction_loss_only", "restore_callback_states_from_checkpoint",
    "ignore_data_skip", "enable_jit_checkpoint", "remove_unused_columns", "dataset_", "completion_only_loss",
    "assistant_only_loss", "truncation_mode", "packing_strategy", "padding_free", "pad_token", "shuffle_dataset",
    "train_sampling_strategy", "length_column_name", "label_names", "bf16", "fp16", "use_cpu", "use_liger_kernel",
    "num_generations", "num_generations_eval", "num_iterations", "steps_per_generation", "generation_batch_size",
    "generate_from_teacher", "bf16_", "fp16_", "teacher_", "chat_template_kwargs", "seq_kd", "disable_dropout",
    "label_smoothing_factor", "include_",
    "batch_eval_metrics", "local_rank",
    "task_type", "peft_type", "peft_version", "inference_mode", "base_model_name_or_path", "revision", "auto_mapping",
)  # fmt: skip
"""Beginnings of names that promptopt's own way of batching, saving and measuring stands on."""

_NOT_IN_GGUF = (
    "use_dora", "modules_to_save", "rank_pattern", "alpha_pattern", "lora_bias", "bias", "trainable_token_indices",
    "target_parameters", "layer_replication", "use_qalora", "qalora_group_size", "use_bdlora", "megatron_",
    "eva_config", "corda_config", "loftq_config", "lora_ga_config", "kasa_config", "velora_config", "monteclora_config",
    "arrow_config", "alora_invocation_tokens", "runtime_config", "ensure_weight_tying",
)  # fmt: skip
"""Beginnings of names of PEFT that a LoRA GGUF cannot say, or that change the base."""

_PLAIN_STARTS = (True, False, "gaussian", "orthogonal")
_PREFIXED = tuple(name for name in (*_UNSAFE, *_OWN, *_NOT_IN_GGUF) if name.endswith("_"))


def check_trainer_args(recipe: TrainingRecipe, kind: MethodKind = "sft") -> None:
    """Pass if `recipe.trainer_args` can be passed on; imports TRL and PEFT only where there are any.

    Raises:
        ConfigError: a name is unknown (the nearest names are said), set elsewhere, unsafe or unsupported; or a value is
            refused by TRL or PEFT.
        MissingExtraError: the `finetune` extra is not installed.
    """
    if not recipe.trainer_args:
        return
    config, lora = config_class(kind), require("peft").LoraConfig
    known = [*_names(config), *_names(lora)]
    for name, value in recipe.trainer_args.items():
        _check_name(name, value, known, kind)
        _check_type(name, value, config if name in _names(config) else lora)
    try:
        with quiet_libraries():
            config(output_dir=gettempdir(), use_cpu=True, report_to="none", **values_for(recipe, config))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"finetune.trainer_args: {config.__name__} refuses them: {_one_line(error)}") from error
    try:
        lora(**values_for(recipe, lora))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"finetune.trainer_args: LoraConfig refuses them: {_one_line(error)}") from error


def config_class(kind: MethodKind) -> Any:
    """Return TRL's class of arguments for a training method."""
    require("trl")
    with quiet_libraries():
        if kind == "self_distill":
            from trl.experimental.sdft import SDFTConfig

            return SDFTConfig
        if kind == "on_policy":
            from trl.experimental.gkd import GKDConfig

            return GKDConfig
    from trl.trainer.sft_config import SFTConfig

    return SFTConfig


def values_for(recipe: TrainingRecipe, config: Any) -> dict[str, Any]:
    """Return those of `recipe.trainer_args` that are fields of the dataclass `config`."""
    names = set(_names(config))
    return {name: value for name, value in recipe.trainer_args.items() if name in names}


def _check_name(name: str, value: Any, known: list[str], kind: str) -> None:
    here = f"finetune.trainer_args.{name}"
    if name in _FIELD_OF:
        raise ConfigError(f"{here}: promptopt sets it. Write {_FIELD_OF[name]} instead.")
    if _among(name, _UNSAFE):
        raise ConfigError(
            f"{here}: is refused, because it could run foreign code, send data away, or read files that are not safe. "
            "Leave it out."
        )
    if _among(name, _OWN):
        raise ConfigError(
            f"{here}: promptopt sets it itself, and its batching, checkpoints and measures stand on that. Leave it out."
        )
    if _among(name, _NOT_IN_GGUF):
        raise ConfigError(
            f"{here}: is refused, because the LoRA weights could then not be served as they were trained (a LoRA GGUF "
            "has one rank, one scale, and no other trained parts). Leave it out."
        )
    if name not in known:
        near = difflib.get_close_matches(name, [*known, *TrainingRecipe.model_fields], n=3)
        hint = f"The nearest names: {', '.join(near)}." if near else "See `python -c 'help(\"trl.SFTConfig\")'`."
        raise ConfigError(f"{here}: neither TRL's trainer for {kind!r} nor PEFT's LoraConfig has it. {hint}")
    if name == "init_lora_weights" and value not in _PLAIN_STARTS:
        raise ConfigError(f"{here}: {value!r} changes the base; allowed are {list(_PLAIN_STARTS)}.")


def _check_type(name: str, value: Any, config: Any) -> None:
    """Dataclasses check no types, and YAML reads `1e-8` as a text: the optimizer would fail at its first step."""
    hint = typing.get_type_hints(config)[name]
    allowed = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    if not set(allowed) <= {int, float, bool, str, type(None)}:
        return  # TRL or PEFT checks it
    fits = (type(value) in allowed) or (float in allowed and type(value) is int)
    if not fits:
        names = " or ".join("null" if one is type(None) else one.__name__ for one in allowed)
        hint = " (a number with an exponent needs a point in YAML: 1.0e-8)" if isinstance(value, str) else ""
        raise ConfigError(f"finetune.trainer_args.{name}: must be {names}; got {value!r}{hint}.")


def _among(name: str, beginnings: Iterable[str]) -> bool:
    return any(name == one or (one in _PREFIXED and name.startswith(one)) for one in beginnings)


def _names(config: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(config) if field.init]


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
