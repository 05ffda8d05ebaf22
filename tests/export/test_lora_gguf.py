"""convert_lora: llama.cpp with the LoRA GGUF says what the Hugging Face model with the LoRA weights says."""

import math
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from gguf import GGUFReader
from transformers import AutoModelForCausalLM

from promptopt.errors import ExportError
from promptopt.export.lora_gguf import convert_lora
from promptopt.lm.llama_cpp.facade import LlamaCpp
from promptopt.lm.llama_cpp.lora import LoraWeights
from promptopt.lm.llama_cpp.requests import GenerationRequest
from promptopt.lm.llama_cpp.sampling import Sampling
from tests.export.conftest import Exported
from tests.export.tiny_models import NETWORKS, TEXTS, chatml_tokenizer, save_model

pytestmark = pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning",
    "ignore:Setting `save_embedding_layers`:UserWarning",
)
TOLERANCE = {"gemma2": 0.06, "gemma3": 0.06}
"""Of log probabilities, 0.01 for all other networks; the engine keeps keys and values in float16, and takes Gemma's
GELU from a table in half precision. The weights' effect is ten times as large and more.
"""


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


ALL: dict[str, Any] = {"target_modules": "all-linear"}
CASES = [
    *((name, ALL) for name in NETWORKS),
    *((name, {"target_modules": ["q_proj", "k_proj"]}) for name in ("llama", "qwen2", "mistral", "gemma3")),
    *((name, {**ALL, "use_rslora": True}) for name in ("llama", "phi3")),
]


@pytest.mark.parametrize(("network", "settings"), CASES)
def test_lora_at_run_time_is_lora_as_trained(
    network: str, settings: dict[str, Any], exported: Exported, tmp_path: Path
) -> None:
    made = exported(network)
    model = make_lora(made.hf_dir, tmp_path / "lora", **settings)
    lora = convert_lora(tmp_path / "lora", made.hf_dir, tmp_path / "lora.gguf")
    ids = made.tokenizer(TEXTS[3])["input_ids"]
    lm = LlamaCpp(made.gguf, cache_dir=None, n_threads=1, n_ctx=256)

    def largest_error(weights: tuple[LoraWeights, ...], expected: torch.Tensor) -> float:
        asked = GenerationRequest(ids, 1, Sampling(), logprobs=100, lora=weights)
        (entry,) = lm.chat.engine.submit(asked).result().logprobs or ()
        return max(abs(top.logprob - float(expected[top.token])) for top in entry.top)

    tuned = log_probabilities(model, ids)
    with model.disable_adapter():
        bare = log_probabilities(model, ids)
    weights, tolerance = (LoraWeights(Path(lora.path)),), TOLERANCE.get(network, 0.01)
    assert largest_error(weights, tuned) < tolerance
    assert largest_error((), bare) < tolerance
    assert largest_error(weights, bare) > 10 * tolerance
    lm.close()


@pytest.mark.parametrize(("rslora", "alpha"), [(False, 12.0), (True, 12.0 * math.sqrt(8))])
def test_the_scale_is_written(rslora: bool, alpha: float, llama_dir: Path, tmp_path: Path) -> None:
    """llama.cpp multiplies by alpha / rank; rsLoRA's alpha / sqrt(rank) is written as a larger alpha."""
    make_lora(llama_dir, tmp_path / "lora", target_modules=["q_proj"], use_rslora=rslora)
    fields = GGUFReader(convert_lora(tmp_path / "lora", llama_dir, tmp_path / "lora.gguf").path).fields
    assert fields["adapter.lora.alpha"].contents() == pytest.approx(alpha)
    assert fields["general.type"].contents() == "adapter" and fields["adapter.type"].contents() == "lora"


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
