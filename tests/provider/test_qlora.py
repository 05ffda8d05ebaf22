"""QLoRAProvider's own promises: checked arguments, served tokens, merged GGUFs, jobs that stop and go on."""

import time
from pathlib import Path
from typing import Any

import dspy
import pytest

import promptopt as po
from promptopt.errors import ConfigError, DataError, TrainingError
from promptopt.provider.qlora import QLoRAJob
from tests.fixtures_gguf import write_tiny_gguf

RECIPE: dict[str, Any] = {"rank": 8, "alpha": 16, "learning_rate": 1e-2, "epochs": 1, "batch_size": 8}
DATA = [
    {"messages": [{"role": "user", "content": f"number {n}"}, {"role": "assistant", "content": f"red{n % 3}"}]}
    for n in range(24)
]
WAIT_S = 240


def made_lm(gguf: Path, provider: po.QLoRAProvider) -> po.LlamaCpp:
    return po.LlamaCpp(gguf, n_ctx=256, max_tokens=8, n_threads=1, parallel=2, cache_dir=None, provider=provider)


def outcome(lm: po.LlamaCpp, data: Any = DATA, data_format: str = "chat", **recipe: Any) -> Any:
    """Return the LM, or raise the error, as BootstrapFinetune does with a job."""
    result = lm.finetune(train_data=data, train_data_format=data_format, train_kwargs=recipe or RECIPE).result(WAIT_S)
    if isinstance(result, Exception):
        raise result
    return result


def test_a_merged_model_is_a_gguf_of_its_own(hf_dir: Path, gguf: Path, tmp_path: Path) -> None:
    provider = po.QLoRAProvider(hf_dir, folder=tmp_path, serving="merged", quantization="q8_0")
    lm = made_lm(gguf, provider)
    tuned = outcome(lm)
    assert (tuned.lora, tuned.chat.path.name) == ((), "tuned-q8_0.gguf")
    prompt = lm.tokenize_messages([{"role": "user", "content": "number 1"}])
    assert tuned.generate_tokens(prompt, 12) != lm.generate_tokens(prompt, 12)
    # What DSPy saves and loads again answers the same, without the provider.
    again = po.LlamaCpp.load_state(tuned.dump_state())
    assert again.generate_tokens(prompt, 12) == tuned.generate_tokens(prompt, 12)
    # Later processes find it by name.
    fresh = made_lm(gguf, po.QLoRAProvider(hf_dir, folder=tmp_path, serving="merged"))
    assert fresh.copy(model=tuned.model).chat.path == tuned.chat.path
    for one in (again, fresh, tuned, lm):
        one.close()


def test_a_cancelled_job_goes_on_where_it_stopped(hf_dir: Path, gguf: Path, tmp_path: Path) -> None:
    lm = made_lm(gguf, po.QLoRAProvider(hf_dir, folder=tmp_path))
    recipe = {**RECIPE, "epochs": 40, "patience": None}
    job = lm.finetune(train_data=DATA, train_data_format="chat", train_kwargs=recipe)
    assert isinstance(job, QLoRAJob)
    deadline = time.monotonic() + WAIT_S
    while len(job.points) < 9 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert job.status() == "running"
    assert job.cancel()
    assert isinstance(job.result(WAIT_S), TrainingError)
    assert (job.status(), job.cancel()) == ("cancelled", False)
    (folder,) = tmp_path.iterdir()
    assert list((folder / "finetune" / "checkpoints").iterdir())
    again = lm.finetune(train_data=DATA, train_data_format="chat", train_kwargs={**recipe})
    assert isinstance(again.result(WAIT_S), po.LlamaCpp)
    assert again.status() == "succeeded"
    assert again.points[0].step > 0
    assert len(list(tmp_path.iterdir())) == 1
    lm.close()


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        ({"num_train_epochs": 3}, "'num_train_epochs'; allowed are fields of TrainingRecipe: .*epochs"),
        ({"student_demos": 0}, "'student_demos'"),
        ({"rank": 0}, "rank is 0"),
    ],
)
def test_train_kwargs_are_checked_by_name(hf_dir: Path, gguf: Path, tmp_path: Path, recipe: Any, said: str) -> None:
    lm = made_lm(gguf, po.QLoRAProvider(hf_dir, folder=tmp_path))
    with pytest.raises(ConfigError, match=said):
        outcome(lm, **recipe)
    lm.close()


def test_a_gguf_of_another_model_is_refused_before_training(hf_dir: Path, tmp_path: Path) -> None:
    other = made_lm(write_tiny_gguf(tmp_path / "other.gguf"), po.QLoRAProvider(hf_dir, folder=tmp_path / "runs"))
    with pytest.raises(TrainingError, match="differ from token"):
        outcome(other)
    assert not (tmp_path / "runs").exists()
    other.close()


def test_what_cannot_be_tuned_is_refused(hf_dir: Path, gguf: Path, tmp_path: Path) -> None:
    lm = made_lm(gguf, po.QLoRAProvider(hf_dir, folder=tmp_path))
    with pytest.raises(DataError, match="'completion'"):
        outcome(lm, data_format="completion")
    lm.finetuning_model = "llama_cpp/unknown-tuned-0123"
    with pytest.raises(ConfigError, match="neither a GGUF file nor"):
        outcome(lm)
    lm.close()
    with pytest.raises(ConfigError, match="it has no config"):
        po.QLoRAProvider(tmp_path)
    with pytest.raises(ConfigError, match="'gguf'; allowed"):
        po.QLoRAProvider(hf_dir, serving="gguf")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="val_share"):
        po.QLoRAProvider(hf_dir, val_share=1.0)


def test_an_lm_without_a_provider_says_so(gguf: Path) -> None:
    lm = po.LlamaCpp(gguf, n_ctx=256, n_threads=1)
    with pytest.raises(dspy.utils.exceptions.LMError, match="does not support fine-tuning"):
        lm.finetune(train_data=DATA, train_data_format="chat")
    lm.kill()
    assert lm.copy(model="other name").chat is lm.chat
    lm.close()
