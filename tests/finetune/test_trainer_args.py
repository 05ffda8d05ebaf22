"""Arguments of TRL and PEFT reach the trainer by name; unknown, doubled and unsafe ones stop it before it loads."""

import json
from pathlib import Path

import pytest

from promptopt.config.methods import MethodKind
from promptopt.config.recipe import TrainingRecipe
from promptopt.errors import ConfigError
from promptopt.finetune.train import finetune
from promptopt.finetune.trainer_args import check_trainer_args


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"lr_scheduler_typ": "cosine"}, r"lr_scheduler_typ: neither .* nearest names: lr_scheduler_type"),
        ({"learning_rte": 1.0}, "nearest names: learning_rate"),
        ({"num_train_epochs": 3}, r"promptopt sets it. Write finetune\.epochs instead"),
        ({"lora_alpha": 3}, r"Write finetune\.alpha instead"),
        ({"trust_remote_code": True}, "is refused"),
        ({"push_to_hub": True}, "is refused"),
        ({"hub_token": "x"}, "is refused"),
        ({"report_to": "wandb"}, "is refused"),
        ({"model_init_kwargs": {"trust_remote_code": True}}, "is refused"),
        ({"output_dir": "/tmp"}, "promptopt sets it itself"),
        ({"save_steps": 5}, "promptopt sets it itself"),
        ({"use_dora": True}, "LoRA GGUF"),
        ({"init_lora_weights": "pissa"}, "changes the base"),
        ({"lr_scheduler_type": "cosin"}, "SFTConfig refuses them: cosin"),
        ({"adam_epsilon": "1e-8"}, r"must be float; got '1e-8' \(a number with an exponent"),
        ({"exclude_modules": ["k_proj"], "layers_pattern": "x"}, "LoraConfig refuses them"),
        ({"distillation_topk": 5}, "neither TRL's trainer for 'sft'"),
    ],
)
def test_an_argument_that_cannot_be_passed_on_is_named(arguments: dict[str, object], complaint: str) -> None:
    recipe = TrainingRecipe.model_validate({"trainer_args": arguments})
    with pytest.raises(ConfigError, match=complaint) as caught:
        check_trainer_args(recipe)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        ("sft", {"lr_scheduler_type": "cosine", "adam_beta2": 0.95, "exclude_modules": ["k_proj"]}),
        ("causal", {"adam_epsilon": 1}),
        ("self_distill", {"distillation_topk": 5, "top_p": 0.9}),
        ("on_policy", {"optim": "adamw_torch_fused"}),
    ],
)
def test_arguments_of_every_method_pass(kind: MethodKind, arguments: dict[str, object]) -> None:
    check_trainer_args(TrainingRecipe.model_validate({"trainer_args": arguments}), kind)


def test_nothing_is_loaded_before_the_check(tmp_path: Path) -> None:
    recipe = TrainingRecipe.model_validate({"trainer_args": {"nonsense": 1}})
    with pytest.raises(ConfigError, match="nonsense"):  # neither rows nor base exist
        finetune(tmp_path / "no.jsonl", tmp_path / "no.jsonl", tmp_path / "no", recipe, tmp_path / "out", 0)


def test_arguments_reach_trainer_and_lora_weights(
    base_dir: Path, train_file: Path, val_file: Path, tmp_path: Path
) -> None:
    arguments = {"lr_scheduler_type": "constant", "exclude_modules": ["down_proj"]}
    recipe = TrainingRecipe.model_validate(
        {"rank": 4, "epochs": 0.5, "batch_size": 8, "warmup_share": 0.0, "trainer_args": arguments}
    )
    result = finetune(train_file, val_file, base_dir, recipe, tmp_path, 0)
    assert {point.learning_rate for point in result.history if point.loss is not None} == {recipe.learning_rate}
    config = json.loads((tmp_path / "lora" / "adapter_config.json").read_text(encoding="utf-8"))
    assert config["exclude_modules"] == ["down_proj"]
