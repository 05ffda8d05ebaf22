"""Training stages in an experiment file: old files stay as they are, and nothing is said in two ways."""

from pathlib import Path

import pytest
import yaml

from promptopt.config.experiment import ExperimentConfig
from promptopt.config.load import load_experiment
from promptopt.config.recipe import TrainingRecipe
from promptopt.errors import ConfigError
from tests.config.test_load import GOOD

STAGES = [
    {"kind": "causal", "documents": "docs", "recipe": {"epochs": 1, "learning_rate": 1e-4}, "seed": 5},
    {"kind": "sft"},
    {"kind": "on_policy", "where": {"question": ["a", "b"]}, "recipe": {"trainer_args": {"optim": "adamw_torch"}}},
]


def _load(tmp_path: Path, **changes: object) -> ExperimentConfig:
    path = tmp_path / "experiment.yaml"
    path.write_text(yaml.safe_dump({**GOOD, **changes}))
    return load_experiment(path)


def test_a_file_without_stages_trains_as_distill_says(tmp_path: Path) -> None:
    assert [stage.kind for stage in _load(tmp_path).training_stages] == ["labels"]
    candidate = _load(tmp_path, distill={"teacher": "candidate"})
    assert ([stage.kind for stage in candidate.training_stages], candidate.training) == (["sft"], ())


def test_stages_change_the_recipe_each_for_itself(tmp_path: Path) -> None:
    config = _load(tmp_path, training=STAGES, search={"weights": None}, finetune={"rank": 4})
    recipes = [stage.recipe_on(config.finetune) for stage in config.training_stages]
    assert [(recipe.rank, recipe.epochs) for recipe in recipes] == [(4, 1), (4, 3), (4, 3)]
    assert [bool(recipe.trainer_args) for recipe in recipes] == [False, False, True]
    assert config.distill.teacher == "candidate"
    assert ExperimentConfig.model_validate_json(config.model_dump_json()) == config
    (stage,) = [stage for stage in config.training if stage.kind == "on_policy"]
    assert [stage.admits({"question": value}) for value in ("a", "c")] == [True, False]


@pytest.mark.parametrize(
    ("stage", "complaint"),
    [
        ({"kind": "sft", "recipe": {"rank": 3}}, "training.0.recipe.rank is 3, and 16 under `finetune`"),
        ({"kind": "sft", "recipe": {"student_demos": 0}}, "recipe.student_demos"),
        ({"kind": "sft", "recipe": {"epochz": 3}}, "Did you mean 'epochs'"),
        ({"kind": "sft", "recipe": {"epochs": -3}}, "training.0.recipe.epochs: .*; got -3"),
        ({"kind": "causal"}, "documents: is required"),
        ({"kind": "causal", "docs": "x"}, "Did you mean 'documents'"),
        ({"kind": "self_distill", "recipe": {"dropout": 0.1}}, "dropout must be 0.0 there"),
        ({"kind": "self_distill"}, r"the student sees the whole prompt too\. Set finetune\.student_instructions"),
        ({"kind": "rl"}, "'sft', 'labels', 'causal', 'self_distill', 'on_policy'"),
    ],
)
def test_an_impossible_stage_is_named(tmp_path: Path, stage: dict[str, object], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        _load(tmp_path, training=[stage], search={"weights": None})


def test_a_stage_may_not_say_alone_what_is_chosen_for_all(tmp_path: Path) -> None:
    stage = {"kind": "sft", "recipe": {"rank": TrainingRecipe().rank}}
    with pytest.raises(ConfigError, match="rank: it must be the same in all stages, and is chosen from the data"):
        _load(tmp_path, training=[stage], search={"weights": None})


def test_a_contradiction_is_refused_and_a_repetition_is_not(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"distill.teacher is 'gold', but .* 'sft'"):
        _load(tmp_path, training=[{"kind": "sft"}], distill={"teacher": "gold"})
    assert _load(tmp_path, training=[{"kind": "labels"}], distill={"teacher": "gold"}).distill.teacher == "gold"


def test_the_joint_study_trains_plain_stages_only(tmp_path: Path) -> None:
    assert _load(tmp_path, training=[{"kind": "sft"}]).search.weights is not None
    for stage in ({"kind": "self_distill"}, {"kind": "sft", "recipe": {"epochs": 1}}):
        with pytest.raises(ConfigError, match=r"Set search.weights: null"):
            _load(tmp_path, training=[stage])


def test_a_chat_template_needs_a_model_of_which_promptopt_makes_the_gguf(tmp_path: Path) -> None:
    model = {"kind": "local", "hf_dir": "m", "gguf": "m.gguf", "chat_template": "chatml"}
    with pytest.raises(ConfigError, match="leave `gguf` out"):
        _load(tmp_path, model=model)
