"""convert_lora: llama.cpp with the LoRA GGUF says what the Hugging Face model with the LoRA weights says."""

from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from promptopt.errors import ExportError
from promptopt.export.convert import convert_to_gguf
from promptopt.export.lora_gguf import convert_lora
from promptopt.lm.llama_cpp.facade import LlamaCpp
from promptopt.lm.llama_cpp.lora import LoraWeights
from promptopt.lm.llama_cpp.requests import GenerationRequest
from promptopt.lm.llama_cpp.sampling import Sampling
from tests.export.tiny_models import TEXTS, chatml_tokenizer, save_model

pytestmark = pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning",
    "ignore:Setting `save_embedding_layers`:UserWarning",
)
TOLERANCE = 0.01
"""Of log probabilities; the engine keeps keys and values in float16. The weights' effect is 0.15 and more."""


def make_lora(hf_dir: Path, out: Path, **settings: Any) -> Any:
    torch.manual_seed(1)
    config = peft.LoraConfig(r=8, lora_alpha=12, task_type="CAUSAL_LM", init_lora_weights=False, **settings)
    model = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(hf_dir, dtype=torch.float32), config)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data *= 0.3
    model.save_pretrained(out)
    return model.eval()


def log_probabilities(model: Any, ids: list[int]) -> torch.Tensor:
    with torch.inference_mode():
        return torch.log_softmax(model(torch.tensor([ids])).logits[0, -1].double(), -1)


@pytest.mark.parametrize("network", ["llama", "qwen2"])
@pytest.mark.parametrize(
    "settings",
    [
        {"target_modules": "all-linear"},
        {"target_modules": ["q_proj", "k_proj"]},
        {"target_modules": "all-linear", "use_rslora": True},
    ],
    ids=["all", "rotary", "rslora"],
)
def test_lora_at_run_time_is_lora_as_trained(network: str, settings: dict[str, Any], tmp_path: Path) -> None:
    hf_dir = save_model(tmp_path / "hf", network, chatml_tokenizer())
    model = make_lora(hf_dir, tmp_path / "lora", **settings)
    base = convert_to_gguf(hf_dir, tmp_path / "base.gguf", outtype="f32")
    lora = convert_lora(tmp_path / "lora", hf_dir, tmp_path / "lora.gguf")
    ids = AutoTokenizer.from_pretrained(hf_dir)(TEXTS[3])["input_ids"]
    lm = LlamaCpp(base.path, cache_dir=None, n_threads=1, n_ctx=256)

    def largest_error(weights: tuple[LoraWeights, ...], expected: torch.Tensor) -> float:
        asked = GenerationRequest(ids, 1, Sampling(), logprobs=100, lora=weights)
        (entry,) = lm.chat.engine.submit(asked).result().logprobs or ()
        return max(abs(top.logprob - float(expected[top.token])) for top in entry.top)

    tuned = log_probabilities(model, ids)
    with model.disable_adapter():
        bare = log_probabilities(model, ids)
    weights = (LoraWeights(Path(lora.path)),)
    assert largest_error(weights, tuned) < TOLERANCE
    assert largest_error((), bare) < TOLERANCE
    assert largest_error(weights, bare) > 10 * TOLERANCE
    lm.close()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"target_modules": ["q_proj"], "use_dora": True}, "DoRA"),
        ({"target_modules": ["q_proj", "lm_head"]}, "lm_head"),
        ({"target_modules": ["q_proj"], "rank_pattern": {"q_proj": 4}}, "ranks of their own"),
    ],
)
def test_what_llama_cpp_would_apply_wrongly_is_refused(settings: dict[str, Any], says: str, tmp_path: Path) -> None:
    hf_dir = save_model(tmp_path / "hf", "llama", chatml_tokenizer())
    make_lora(hf_dir, tmp_path / "lora", **settings)
    with pytest.raises(ExportError, match=says):
        convert_lora(tmp_path / "lora", hf_dir, tmp_path / "lora.gguf")
    assert not (tmp_path / "lora.gguf").exists()


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"no adapter_config\.json"):
        convert_lora(tmp_path, tmp_path, tmp_path / "lora.gguf")
