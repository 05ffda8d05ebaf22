"""Every method learns from what it is about, is checked like the others, and goes on after a kill."""

from pathlib import Path
from typing import Any

import pytest

from promptopt.config.methods import Causal, Method, OnPolicy, SelfDistill
from promptopt.config.recipe import TrainingRecipe
from promptopt.errors import TrainingError
from promptopt.finetune.selftest import require_selftest
from promptopt.finetune.train import finetune
from promptopt.records import FinetuneResult, LossPoint
from tests.finetune.tiny_models import (
    make_base,
    make_documents,
    make_rows,
    make_teaching_rows,
    make_tokenizer,
    write_rows,
)

RECIPE = TrainingRecipe(rank=8, alpha=16, learning_rate=1e-2, epochs=4, batch_size=8, patience=None, max_length=128)
RECIPES = {"causal": RECIPE.model_copy(update={"batch_size": 1, "epochs": 2})}  # of packed documents
METHODS: dict[str, Method] = {
    "causal": Causal(),
    "self_distill": SelfDistill(max_answer_tokens=6),
    "on_policy": OnPolicy(max_answer_tokens=6),
}


class Killed(BaseException):
    """Stands for a kill between two steps: nothing is caught, nothing is cleaned up."""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    folder = tmp_path_factory.mktemp("methods")
    documents = make_documents(20)
    rows = write_rows(folder / "t.jsonl", make_teaching_rows(24, 1)), write_rows(folder / "v.jsonl", make_rows(6, 2))
    texts = write_rows(folder / "dt.jsonl", documents[:16]), write_rows(folder / "dv.jsonl", documents[16:])
    return {"causal": texts, "self_distill": rows, "on_policy": rows}


@pytest.fixture(scope="module")
def unbroken(
    base_dir: Path, files: dict[str, tuple[Path, Path]], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, FinetuneResult]:
    folder = tmp_path_factory.mktemp("unbroken")
    return {
        kind: finetune(*files[kind], base_dir, RECIPES.get(kind, RECIPE), folder / kind, 7, method=method)
        for kind, method in METHODS.items()
    }


def _losses(result: FinetuneResult) -> list[float]:
    return [point.loss for point in result.history if point.loss is not None]


@pytest.mark.parametrize("kind", METHODS)
def test_every_method_learns(kind: str, unbroken: dict[str, FinetuneResult]) -> None:
    result = unbroken[kind]
    losses, epoch = _losses(result), round(result.steps / result.epochs)
    assert (result.method, len(losses)) == (kind, result.steps)
    # Every batch of sampled answers has a loss of its own; epochs can be compared.
    assert sum(losses[-epoch:]) < 0.95 * sum(losses[:epoch])
    assert result.trained_tokens > 0


@pytest.mark.parametrize("kind", METHODS)
def test_a_run_that_broke_off_ends_like_an_unbroken_one(
    kind: str, unbroken: dict[str, FinetuneResult], base_dir: Path, files: dict[str, tuple[Path, Path]], tmp_path: Path
) -> None:
    last, recipe = unbroken[kind].steps - 1, RECIPES.get(kind, RECIPE)
    seen: list[int] = []

    def break_off(point: LossPoint, total: int) -> None:
        if point.step == last:
            raise Killed

    with pytest.raises(Killed):
        finetune(*files[kind], base_dir, recipe, tmp_path, 7, break_off, save_every_s=0.0, method=METHODS[kind])
    resumed = finetune(
        *files[kind], base_dir, recipe, tmp_path, 7, lambda point, _: seen.append(point.step), method=METHODS[kind]
    )
    assert seen[0] == last
    # Sampled answers come from the random state that the checkpoint keeps: equal to the last bit.
    assert resumed.history == unbroken[kind].history
    assert resumed.trained_tokens == unbroken[kind].trained_tokens


def test_the_teacher_is_the_base_without_lora_weights(
    unbroken: dict[str, FinetuneResult], base_dir: Path, files: dict[str, tuple[Path, Path]], tmp_path: Path
) -> None:
    other = OnPolicy(max_answer_tokens=6, teacher=str(base_dir))
    result = finetune(*files["on_policy"], base_dir, RECIPE, tmp_path, 7, method=other)
    assert result.history == unbroken["on_policy"].history


def test_a_teacher_that_agrees_teaches_nothing(base_dir: Path, tmp_path: Path) -> None:
    train, val = write_rows(tmp_path / "t.jsonl", make_rows(8, 1)), write_rows(tmp_path / "v.jsonl", make_rows(4, 2))
    recipe = RECIPE.model_copy(update={"epochs": 1})
    same = OnPolicy(max_answer_tokens=4, teacher=str(base_dir), student_share=1.0)
    result = finetune(train, val, base_dir, recipe, tmp_path / "out", 0, method=same)
    assert _losses(result) == [pytest.approx(0, abs=1e-6)]
    for method in (SelfDistill(), OnPolicy()):
        with pytest.raises(TrainingError, match=r"in all 8 rows the student's prompt is the teacher's"):
            finetune(train, val, base_dir, recipe, tmp_path / "refused", 0, method=method)


def test_a_teacher_with_another_tokenizer_is_refused(
    base_dir: Path, files: dict[str, tuple[Path, Path]], tmp_path: Path
) -> None:
    teacher = make_base(tmp_path / "teacher")
    tokenizer = make_tokenizer()
    tokenizer.add_tokens(["newword"])
    tokenizer.save_pretrained(teacher)
    method = OnPolicy(teacher=str(teacher))
    with pytest.raises(TrainingError, match="another tokenizer"):
        finetune(*files["on_policy"], base_dir, RECIPE, tmp_path / "out", 0, method=method)


def test_a_teachers_prompt_counts_as_length(base_dir: Path, tmp_path: Path) -> None:
    rows = make_teaching_rows(8, 1)
    long = rows[0].teacher_prompt[0].model_copy(update={"content": "red car " * 60})
    rows[0] = rows[0].model_copy(update={"teacher_prompt": (long, *rows[0].teacher_prompt[1:])})
    train, val = write_rows(tmp_path / "t.jsonl", rows), write_rows(tmp_path / "v.jsonl", make_rows(4, 2))
    with pytest.raises(TrainingError, match=r"1 of 8 rows are longer than 128 .*'1-0'"):
        finetune(train, val, base_dir, RECIPE, tmp_path / "out", 0, method=SelfDistill())
    allowed = RECIPE.model_copy(update={"allowed_truncated_rows": 1, "epochs": 1})
    result = finetune(train, val, base_dir, allowed, tmp_path / "out", 0, method=SelfDistill(max_answer_tokens=4))
    assert (result.train_rows, result.dropped_rows) == (7, 1)


def test_a_sampled_answer_must_fit_into_the_context(
    base_dir: Path, files: dict[str, tuple[Path, Path]], tmp_path: Path
) -> None:
    with pytest.raises(TrainingError, match="context of 256"):
        method = SelfDistill(max_answer_tokens=250)
        finetune(*files["self_distill"], base_dir, RECIPE, tmp_path, 0, method=method)


def test_a_sampled_end_of_turn_is_trained() -> None:
    import torch

    from promptopt.finetune.on_policy import OnPolicyTrainer

    class Says:
        def generate(self, **_: Any) -> Any:
            return type("Output", (), {"sequences": torch.tensor([[9, 5, 6, 2, 0, 0]])})

    prompts = {"prompts": torch.tensor([[9]]), "prompt_attention_mask": torch.tensor([[1]])}
    config = type("Config", (), {"eos_token_id": [2]})
    _, _, labels = OnPolicyTrainer.generate_on_policy_outputs(Says(), prompts, config)
    assert labels.tolist() == [[-100, 5, 6, 2, -100, -100]]


def test_a_failing_self_test_stops_every_method(
    base_dir: Path, files: dict[str, tuple[Path, Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import bitsandbytes as bnb

    require_selftest.cache_clear()  # it passed in this process before
    forward = bnb.nn.Linear4bit.forward
    monkeypatch.setattr(bnb.nn.Linear4bit, "forward", lambda layer, x: forward(layer, x).detach())
    for kind, method in METHODS.items():
        with pytest.raises(TrainingError, match="self-test failed"):
            finetune(*files[kind], base_dir, RECIPE, tmp_path / kind, 0, method=method)
