"""merge_lora: the merged model is what was trained, namely the 4-bit base with LoRA on it."""

import errno
import json
from pathlib import Path
from typing import Any

import bitsandbytes
import peft
import pytest
import torch
from bitsandbytes import functional
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, PreTrainedModel

from promptopt.errors import ExportError
from promptopt.export import merge
from promptopt.export.convert import convert_to_gguf
from promptopt.export.merge import BaseQuantization, merge_lora
from tests.export.llama_runner import Runner
from tests.export.tiny_models import NETWORKS, TEXTS, chatml_tokenizer, save_model

# PEFT 0.21 with transformers 5, while the tests themselves build LoRA models.
pytestmark = pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning",
    "ignore:Model has `tie_word_embeddings=True`:UserWarning",
    "ignore:Setting `save_embedding_layers`:UserWarning",
)
ALL_LINEAR: dict[str, Any] = {"target_modules": "all-linear"}
WITH_HEAD: dict[str, Any] = {"target_modules": ["q_proj", "down_proj", "lm_head"]}
TOLERANCE = 1e-4
"""Of logits with standard deviation 1.7; measured 3e-5 and less (another order of sums in float32)."""


def load_as_in_training(hf_dir: Path, quantization: BaseQuantization) -> PreTrainedModel:
    if quantization == "none":
        return AutoModelForCausalLM.from_pretrained(hf_dir, dtype=torch.float32)
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=quantization,
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32,
    )
    model = AutoModelForCausalLM.from_pretrained(hf_dir, quantization_config=config, dtype=torch.float32)
    for module in model.modules():
        if isinstance(module, bitsandbytes.nn.Linear4bit):
            module.support_avx512bf16_for_cpu = False
    return model


def make_lora(hf_dir: Path, out: Path, quantization: BaseQuantization, **settings: Any) -> torch.Tensor:
    """Save LoRA weights that change the model well; return the logits of the 4-bit base with them."""
    torch.manual_seed(1)
    config = peft.LoraConfig(r=8, lora_alpha=16, task_type="CAUSAL_LM", init_lora_weights=False, **settings)
    model = peft.get_peft_model(load_as_in_training(hf_dir, quantization), config)
    for name, parameter in model.named_parameters():
        if "lora_" in name and "magnitude" not in name:
            parameter.data *= 0.3
    model.save_pretrained(out)
    return logits_of(model.eval(), hf_dir)


def logits_of(model: Any, hf_dir: Path) -> torch.Tensor:
    ids = AutoTokenizer.from_pretrained(hf_dir)(TEXTS[3], return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        return model(ids).logits[0]


def merged_logits(folder: Path) -> torch.Tensor:
    return logits_of(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), folder)


RS_LORA, DORA = {**ALL_LINEAR, "use_rslora": True}, {**ALL_LINEAR, "use_dora": True}
CASES = [("nf4", network, settings) for network in ("llama", "qwen2") for settings in (ALL_LINEAR, DORA, WITH_HEAD)]
CASES += [("nf4", "llama", RS_LORA), ("fp4", "qwen2", ALL_LINEAR), ("none", "llama", RS_LORA), ("none", "qwen2", DORA)]


@pytest.mark.parametrize(("quantization", "network", "settings"), CASES)
def test_merged_logits_are_those_of_the_quantized_base_with_lora(
    quantization: BaseQuantization, network: str, settings: dict[str, Any],
    llama_dir: Path, qwen2_dir: Path, tmp_path: Path,
) -> None:  # fmt: skip
    hf_dir = {"llama": llama_dir, "qwen2": qwen2_dir}[network]
    expected = make_lora(hf_dir, tmp_path / "lora", quantization, **settings)
    base = logits_of(load_as_in_training(hf_dir, quantization), hf_dir)
    assert (expected - base).abs().mean() > 0.05  # the LoRA weights do something
    out = merge_lora(hf_dir, tmp_path / "lora", tmp_path / "merged", quantization, dtype="float32")
    torch.testing.assert_close(merged_logits(out), expected, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("name", ["gemma3", "phi3"])
def test_fused_matrices_and_other_norms_merge_too(name: str, tmp_path: Path) -> None:
    kind = NETWORKS[name]
    hf_dir = save_model(tmp_path / "hf", kind.network, kind.tokenizer(), **kind.changes)
    expected = make_lora(hf_dir, tmp_path / "lora", "nf4", **ALL_LINEAR)
    out = merge_lora(hf_dir, tmp_path / "lora", tmp_path / "merged", "nf4", dtype="float32")
    torch.testing.assert_close(merged_logits(out), expected, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("quantization", ["nf4", "none"])
def test_the_base_of_a_cuda_training_is_rounded_to_bfloat16_first(
    quantization: BaseQuantization, llama_dir: Path, tmp_path: Path
) -> None:
    make_lora(llama_dir, tmp_path / "lora", quantization, target_modules=["q_proj"])
    out = merge_lora(
        llama_dir, tmp_path / "lora", tmp_path / "merged", quantization, dtype="float32", trained_on="cuda"
    )
    merged = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)
    stored = AutoModelForCausalLM.from_pretrained(llama_dir, dtype=torch.float32)
    embeddings = stored.get_input_embeddings().weight
    assert torch.equal(merged.get_input_embeddings().weight, embeddings.bfloat16().float())
    # A matrix without LoRA weights is the base alone.
    matrix = "model.layers.0.mlp.down_proj.weight"
    expected = {
        dtype: _held(stored.get_parameter(matrix).detach().to(dtype), quantization)
        for dtype in (torch.bfloat16, torch.float32)
    }
    assert torch.equal(merged.get_parameter(matrix), expected[torch.bfloat16])
    assert not torch.equal(merged.get_parameter(matrix), expected[torch.float32])
    written = (out / "model.safetensors").stat().st_mtime_ns
    merge_lora(llama_dir, tmp_path / "lora", out, quantization, dtype="float32")
    assert (out / "model.safetensors").stat().st_mtime_ns != written
    assert json.loads((out / "merge.json").read_text(encoding="utf-8"))["trained_on"] == "cpu"


def _held(weight: torch.Tensor, quantization: BaseQuantization) -> torch.Tensor:
    """What a matrix stands for once training has loaded it, in the type it was loaded in, as float32."""
    if quantization == "none":
        return weight.float()
    packed, state = functional.quantize_4bit(weight, quant_type=quantization, compress_statistics=True)
    return functional.dequantize_4bit(packed, state).float()


def test_merging_into_the_original_base_would_be_another_model(llama_dir: Path, tmp_path: Path) -> None:
    expected = make_lora(llama_dir, tmp_path / "lora", "nf4", **ALL_LINEAR)
    wrong = merged_logits(merge_lora(llama_dir, tmp_path / "lora", tmp_path / "merged", "none", dtype="float32"))
    assert (wrong - expected).abs().max() > 100 * TOLERANCE


def test_the_merged_folder_is_whole_and_exports(llama_dir: Path, tmp_path: Path) -> None:
    expected = make_lora(llama_dir, tmp_path / "lora", "nf4", **ALL_LINEAR)
    out = merge_lora(llama_dir, tmp_path / "lora", tmp_path / "merged", "nf4")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"):
        assert (out / name).read_bytes() == (llama_dir / name).read_bytes()
    config = json.loads((out / "config.json").read_text(encoding="utf-8"))
    assert config["dtype"] == "float16" and config["tie_word_embeddings"] and "quantization_config" not in config
    gguf = convert_to_gguf(out, tmp_path / "m.gguf", outtype="f32")
    with Runner(gguf.path) as runner:
        ids = AutoTokenizer.from_pretrained(out).encode(TEXTS[3])
        # f16 rounds each weight to 11 bits.
        torch.testing.assert_close(torch.from_numpy(runner.logits(ids)), expected, atol=0.05, rtol=0)


def test_lora_on_one_end_of_a_tied_pair_unties_it(llama_dir: Path, tmp_path: Path) -> None:
    make_lora(llama_dir, tmp_path / "lora", "none", **WITH_HEAD)
    out = merge_lora(llama_dir, tmp_path / "lora", tmp_path / "merged", "none", dtype="float32")
    merged = AutoModelForCausalLM.from_pretrained(out)
    base = AutoModelForCausalLM.from_pretrained(llama_dir)
    assert torch.equal(merged.get_input_embeddings().weight, base.get_input_embeddings().weight)
    assert not torch.equal(merged.get_output_embeddings().weight, merged.get_input_embeddings().weight)
    with Runner(convert_to_gguf(out, tmp_path / "m.gguf", outtype="f32").path) as runner:
        ids = AutoTokenizer.from_pretrained(out).encode(TEXTS[3])
        torch.testing.assert_close(torch.from_numpy(runner.logits(ids)), merged_logits(out), atol=TOLERANCE, rtol=0)


def test_a_finished_merge_is_not_repeated_and_another_one_replaces_it(
    llama_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_lora(llama_dir, tmp_path / "lora", "none", **ALL_LINEAR)
    out = merge_lora(llama_dir, tmp_path / "lora", tmp_path / "merged", "none")
    written = (out / "model.safetensors").stat().st_mtime_ns
    merge_lora(llama_dir, tmp_path / "lora", out, "none")
    assert (out / "model.safetensors").stat().st_mtime_ns == written
    merge_lora(llama_dir, tmp_path / "lora", out, "none", dtype="float32")
    assert (out / "model.safetensors").stat().st_mtime_ns != written
    # A full disk afterwards leaves this one as it is.
    before = (out / "model.safetensors").read_bytes()

    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(merge.shutil, "copyfile", full)
    with pytest.raises(ExportError, match="No space left"):
        merge_lora(llama_dir, tmp_path / "lora", out, "none")
    assert (out / "model.safetensors").read_bytes() == before
    assert sorted(file.name for file in tmp_path.iterdir()) == ["lora", "merged"]


def test_missing_and_foreign_lora_weights(llama_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"adapter_config\.json is missing"):
        merge_lora(llama_dir, tmp_path / "lora", tmp_path / "merged", "nf4")
    deeper = save_model(tmp_path / "deeper", "llama", chatml_tokenizer(), num_hidden_layers=3)
    make_lora(deeper, tmp_path / "lora", "none", **ALL_LINEAR)
    with pytest.raises(ExportError, match=r"do not fit the base.*layers\.2"):
        merge_lora(llama_dir, tmp_path / "lora", tmp_path / "merged", "none")
    wider = save_model(tmp_path / "wider", "llama", chatml_tokenizer(), hidden_size=128)
    make_lora(wider, tmp_path / "lora", "none", **ALL_LINEAR)
    with pytest.raises(ExportError, match="do not fit the base"):
        merge_lora(llama_dir, tmp_path / "lora", tmp_path / "merged", "none")
    assert not (tmp_path / "merged").exists()


def test_weights_that_diverged(llama_dir: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    make_lora(llama_dir, tmp_path / "lora", "none", **ALL_LINEAR)
    file = tmp_path / "lora" / "adapter_model.safetensors"
    weights = load_file(file)
    save_file({name: weight * 1e4 for name, weight in weights.items()}, file)
    with pytest.raises(ExportError, match="float16 cannot hold"):
        merge_lora(llama_dir, tmp_path / "lora", tmp_path / "merged", "none")
    save_file({name: weight * float("nan") for name, weight in weights.items()}, file)
    with pytest.raises(ExportError, match="diverged"):
        merge_lora(llama_dir, tmp_path / "lora", tmp_path / "merged", "none")


def test_unsupported_base_quantization(llama_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="'int8'; merging supports"):
        merge_lora(llama_dir, tmp_path, tmp_path / "merged", "int8")  # type: ignore[arg-type]
    with pytest.raises(ExportError, match="'tpu'; allowed are"):
        merge_lora(llama_dir, tmp_path, tmp_path / "merged", "nf4", trained_on="tpu")
