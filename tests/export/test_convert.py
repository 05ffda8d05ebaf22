"""convert_to_gguf: llama.cpp computes the same logits as transformers, for every supported kind of model."""

import errno
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGUFReader
from transformers import AutoModelForCausalLM

from promptopt.errors import ExportError
from promptopt.export import convert
from promptopt.export.atomic import sha256_of
from promptopt.export.convert import convert_to_gguf
from tests.export.llama_runner import Runner
from tests.export.tiny_models import LLAMA3_ROPE, TEXTS, chatml_tokenizer, edit_json, llama3_tokenizer, save_model

YARN = {"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e6, "original_max_position_embeddings": 128}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama, untied": ("llama", {}),
    "llama, tied, head_dim of its own": ("llama", {"tie_word_embeddings": True, "head_dim": 32}),
    "llama 3.x: rope_freqs, bos": ("llama3", {"rope_parameters": LLAMA3_ROPE}),
    "llama, linear rope": ("llama", {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}}),
    "llama with biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "llama, bf16, sharded, padded vocabulary": (
        "llama",
        {"dtype": torch.bfloat16, "max_shard_size": "100KB", "pad_vocab": 9},
    ),
    "llama, f16": ("llama", {"dtype": torch.float16}),
    "qwen2": ("qwen2", {}),
    "qwen2, tied, yarn": ("qwen2", {"tie_word_embeddings": True, "rope_parameters": YARN}),
}
TOLERANCE = 1e-4
"""Of logits with standard deviation 1.7; measured 4e-5 and less (another order of sums in float32)."""


@pytest.mark.parametrize("name", MODELS)
def test_logits_and_greedy_tokens_agree(name: str, tmp_path: Path) -> None:
    kind, changes = MODELS[name]
    tokenizer = llama3_tokenizer() if kind == "llama3" else chatml_tokenizer()
    hf_dir = save_model(tmp_path / "hf", kind.removesuffix("3"), tokenizer, **changes)
    gguf = convert_to_gguf(hf_dir, tmp_path / "model.gguf", outtype="f32")
    model = AutoModelForCausalLM.from_pretrained(hf_dir, dtype=torch.float32)
    ids = [token for text in TEXTS for token in tokenizer.encode(text, add_special_tokens=False)][:300]
    with torch.inference_mode(), Runner(gguf.path) as runner:
        expected = model(torch.tensor([ids])).logits[0].numpy()
        assert expected.std() > 1  # else agreement would say little
        np.testing.assert_allclose(runner.logits(ids), expected, atol=TOLERANCE)
        prompt = torch.tensor([ids[:20]])
        greedy = model.generate(prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=12)
        made = runner.greedy(ids[:20], 12)
    assert greedy[0, 20 : 20 + len(made)].tolist() == made and made


def test_the_sharded_case_above_really_has_shards(tmp_path: Path) -> None:
    save_model(tmp_path, "llama", chatml_tokenizer(), dtype=torch.bfloat16, max_shard_size="100KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1


def test_f16_stores_matrices_in_f16_and_norms_in_f32(qwen2_dir: Path, tmp_path: Path) -> None:
    gguf = convert_to_gguf(qwen2_dir, tmp_path / "m.gguf", outtype="f16")
    types = {tensor.name: tensor.tensor_type.name for tensor in GGUFReader(gguf.path).tensors}
    assert types["blk.0.attn_q.weight"] == types["token_embd.weight"] == types["output.weight"] == "F16"
    assert types["blk.0.attn_norm.weight"] == types["blk.0.attn_q.bias"] == types["output_norm.weight"] == "F32"
    assert gguf.size_bytes == (tmp_path / "m.gguf").stat().st_size
    assert gguf.sha256 == sha256_of(tmp_path / "m.gguf") and gguf.quantization == "f16"


def test_the_same_model_gives_the_same_file(llama_dir: Path, tmp_path: Path) -> None:
    one = convert_to_gguf(llama_dir, tmp_path / "one.gguf")
    assert one.sha256 == convert_to_gguf(llama_dir, tmp_path / "two.gguf").sha256


def test_metadata_is_readable(llama_dir: Path, tmp_path: Path) -> None:
    metadata = {"promptopt.candidate": '{"layout": "文書"}', "promptopt.experiment": "viggo", "general.name": "tuned"}
    reader = GGUFReader(convert_to_gguf(llama_dir, tmp_path / "m.gguf", metadata=metadata).path)
    found = {key: field.contents() for key, field in reader.fields.items()}
    assert metadata.items() <= found.items()
    assert found["general.architecture"] == "llama"
    assert found["llama.attention.head_count_kv"] == 2 and found["llama.context_length"] == 512
    assert found["tokenizer.ggml.pre"] == "qwen2" and "<|im_start|>" in found["tokenizer.chat_template"]


def test_other_metadata_keys_are_refused(llama_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"general\.architecture.*promptopt\."):
        convert_to_gguf(llama_dir, tmp_path / "m.gguf", metadata={"general.architecture": "gpt2"})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"architectures": ["GemmaForCausalLM"]},
            "GemmaForCausalLM.*LlamaForCausalLM, MistralForCausalLM",
        ),
        ({"architectures": None}, r"\(none\).*supports"),
        ({"hidden_act": "gelu"}, "hidden_act = 'gelu'"),
        ({"rope_parameters": {"rope_type": "dynamic", "factor": 2.0}}, "dynamic.*default, linear, llama3, yarn"),
        ({"hidden_size": None}, "lacks the key 'hidden_size'"),
        ({"num_hidden_layers": 3}, r"lacks the weights of blk\.2\."),
        ({"num_hidden_layers": 1}, "of 1 layers does not have"),
        ({"tie_word_embeddings": False}, r"lacks the weights of output\.weight"),
        ({"vocab_size": 100}, "only 100 embeddings"),
    ],
)
def test_what_cannot_be_written_is_said(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    hf_dir = save_model(tmp_path / "hf", "llama", chatml_tokenizer(), tie_word_embeddings=True)
    edit_json(hf_dir / "config.json", **changes)
    with pytest.raises(ExportError, match=message):
        convert_to_gguf(hf_dir, tmp_path / "m.gguf")
    assert not list(tmp_path.glob("*.gguf*"))


def test_old_rope_keys_are_read_too(tmp_path: Path) -> None:
    hf_dir = save_model(tmp_path / "hf", "llama", chatml_tokenizer())
    scaling = {"type": "linear", "factor": 2.0}
    edit_json(hf_dir / "config.json", rope_parameters=None, rope_theta=5000.0, rope_scaling=scaling)
    fields = GGUFReader(convert_to_gguf(hf_dir, tmp_path / "m.gguf").path).fields
    assert fields["llama.rope.freq_base"].contents() == 5000.0
    assert fields["llama.rope.scaling.factor"].contents() == 2.0


def test_a_folder_that_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"no config\.json"):
        convert_to_gguf(tmp_path, tmp_path / "m.gguf")


def test_missing_and_cut_off_weights(tmp_path: Path) -> None:
    hf_dir = save_model(tmp_path / "hf", "llama", chatml_tokenizer())
    weights = hf_dir / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ExportError, match="damaged or cut off"):
        convert_to_gguf(hf_dir, tmp_path / "m.gguf")
    weights.unlink()
    with pytest.raises(ExportError, match=r"lacks the weight file\(s\) model\.safetensors"):
        convert_to_gguf(hf_dir, tmp_path / "m.gguf")


def test_values_too_large_for_f16(tmp_path: Path) -> None:
    hf_dir = save_model(tmp_path / "hf", "llama", chatml_tokenizer())
    model = AutoModelForCausalLM.from_pretrained(hf_dir)
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight[0, 0] = 1e6
    model.save_pretrained(hf_dir)
    with pytest.raises(ExportError, match=r"blk\.0\.ffn_up\.weight.*float16 cannot hold \(largest 1e\+06"):
        convert_to_gguf(hf_dir, tmp_path / "m.gguf")
    assert convert_to_gguf(hf_dir, tmp_path / "m.gguf", outtype="f32")


def test_a_full_disk_leaves_the_older_file_and_nothing_else(
    llama_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "m.gguf"
    out.write_text("older")
    calls = iter(range(100))

    def fail_at_the_tenth(*arguments: object) -> np.ndarray[Any, Any]:
        if next(calls) == 10:
            raise OSError(errno.ENOSPC, "No space left on device")
        return original(*arguments)  # type: ignore[arg-type]

    original = convert._converted
    monkeypatch.setattr(convert, "_converted", fail_at_the_tenth)
    with pytest.raises(ExportError, match=r"No space left.*MB left.*run the same command again"):
        convert_to_gguf(llama_dir, out)
    assert [file.name for file in tmp_path.iterdir()] == ["m.gguf"] and out.read_text() == "older"


def test_what_a_killed_process_left_behind_is_removed(llama_dir: Path, tmp_path: Path) -> None:
    left = tmp_path / ".m.gguf.999999999.tmp"
    left.write_text("half")
    convert_to_gguf(llama_dir, tmp_path / "m.gguf")
    assert [file.name for file in tmp_path.iterdir()] == ["m.gguf"]
