"""Every supported network, end to end: export, load in llama.cpp, same tokens, same logits, same text.

Each is made and converted once; LoRA weights on it are in test_lora_gguf.py.
"""

from typing import Any

import llama_cpp
import numpy as np
import pytest
import torch
from gguf import GGUFReader
from transformers import AutoModelForCausalLM

from promptopt.errors import ExportError
from promptopt.export import converter_source, converter_worker
from promptopt.export.convert import convert_to_gguf
from promptopt.export.end_tokens import read_special_ids
from promptopt.export.hf_folder import read_json
from promptopt.export.networks import ARCHITECTURES, read_network
from tests.export.conftest import Exported
from tests.export.llama_runner import Runner
from tests.export.tiny_models import NETWORKS, TEXTS, chatml_tokenizer, edit_json, gemma_tokenizer, save_model

TOLERANCE = {"gemma2": 0.05, "gemma3": 0.15}
"""Largest difference of a logit; of all other networks 1e-4, as sums in float32 allow (measured 3e-5 and less).

Gemma: logits of standard deviation 3.2; measured 0.01 (2) and 0.04 (3). ggml takes GELU from a table in half precision:
with transformers' GELU rounded in the same way the mean difference falls to a fifth and less.
"""


def test_every_architecture_has_its_test() -> None:
    assert {name.removesuffix("ForCausalLM").lower() for name in ARCHITECTURES} == {
        name.partition(" ")[0] for name in NETWORKS
    }


@pytest.mark.parametrize("name", NETWORKS)
def test_logits_and_greedy_tokens_agree(name: str, exported: Exported) -> None:
    made = exported(name)
    model = AutoModelForCausalLM.from_pretrained(made.hf_dir, dtype=torch.float32)
    ids = [token for text in TEXTS for token in made.tokenizer.encode(text, add_special_tokens=False)][:300]
    with torch.inference_mode(), Runner(made.gguf) as runner:
        expected = model(torch.tensor([ids])).logits[0].numpy()
        assert expected.std() > 1  # else agreement would say little
        np.testing.assert_allclose(runner.logits(ids), expected, atol=TOLERANCE.get(name.partition(" ")[0], 1e-4))
        prompt = torch.tensor([ids[:20]])
        greedy = model.generate(prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=12)
        written = runner.greedy(ids[:20], 12)
    assert greedy[0, 20 : 20 + len(written)].tolist() == written and written


@pytest.mark.parametrize("name", NETWORKS)
def test_token_ids_of_chat_prompts_agree(name: str, exported: Exported) -> None:
    made = exported(name)
    with Runner(made.gguf, vocab_only=True) as runner:
        for text in TEXTS:
            messages = [{"role": "user", "content": text}]
            prompt = made.tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
            assert runner.tokenize(prompt) == made.tokenizer.encode(prompt, add_special_tokens=False)
            assert runner.tokenize(prompt + text) == made.tokenizer.encode(prompt + text, add_special_tokens=False)


@pytest.mark.parametrize("name", NETWORKS)
def test_wound_chat_template_differs_after_export(name: str, exported: Exported) -> None:
    made = exported(name)
    template = GGUFReader(made.gguf).fields["tokenizer.chat_template"].contents()
    assert template == made.tokenizer.chat_template


@pytest.mark.parametrize("name", NETWORKS)
def test_wound_special_tokens_and_ends_get_lost(name: str, exported: Exported) -> None:
    made = exported(name)
    lib: Any = llama_cpp
    tokens = made.tokenizer.convert_ids_to_tokens(list(range(len(made.tokenizer))))
    config = read_json(made.hf_dir / "tokenizer_config.json")
    special = read_special_ids(made.hf_dir, config, tokens, made.tokenizer.chat_template)
    with Runner(made.gguf, vocab_only=True) as runner:
        assert lib.llama_vocab_eos(runner.vocab) == made.tokenizer.eos_token_id
        for number, found in (
            (made.tokenizer.bos_token_id, lib.llama_vocab_bos),
            (made.tokenizer.pad_token_id, lib.llama_vocab_pad),
        ):
            assert number is None or found(runner.vocab) == number
        ends = {token for token in range(len(tokens)) if lib.llama_vocab_is_eog(runner.vocab, token)}
        assert ends == special.ends >= {made.tokenizer.eos_token_id, *made.own_ends}
        for number in made.tokenizer.all_special_ids:
            text = made.tokenizer.convert_ids_to_tokens(number)
            assert (runner.tokenize(text) == [number] and lib.llama_vocab_is_control(runner.vocab, number)) or (
                number == made.tokenizer.unk_token_id
            )


def test_phi3s_name_says_that_its_tokens_swallow_white_space(exported: Exported) -> None:
    assert GGUFReader(exported("phi3").gguf).fields["general.name"].contents() == "hf (Phi-3)"


def test_a_name_alone_makes_no_phi3(tmp_path: Any) -> None:
    hf_dir = save_model(tmp_path / "my-phi3-distill", "llama", chatml_tokenizer())
    made = convert_to_gguf(hf_dir, tmp_path / "m.gguf")
    assert GGUFReader(made.path).fields["general.name"].contents() == "my-phi 3-distill"
    with Runner(made.path, vocab_only=True) as runner:
        assert runner.tokenize("<|im_start|>\n") == chatml_tokenizer().encode("<|im_start|>\n")


@pytest.mark.parametrize(
    ("network", "changes", "message"),
    [
        ("gemma2", {"query_pre_attn_scalar": 64}, "query_pre_attn_scalar = 64.*supports 32"),
        ("gemma2", {"hidden_activation": "silu"}, "hidden_activation = 'silu'.*supports 'gelu_pytorch_tanh'"),
        ("gemma3", {"layer_types": ["full_attention"] * 7}, "layer_types = .*sliding_attention.*None: absent"),
        ("phi3", {"hidden_act": "gelu"}, "hidden_act = 'gelu'"),
        ("qwen3", {"quantization_config": {"bits": 4}}, "quantization_config"),
    ],
)
def test_what_llama_cpps_graph_would_ignore_is_refused(
    network: str, changes: dict[str, Any], message: str, exported: Exported
) -> None:
    config = read_json(exported(network).hf_dir / "config.json") | changes
    with pytest.raises(ExportError, match=message):
        read_network(config, source="config.json")


def test_what_llama_cpp_computes_otherwise_bounds_the_context(exported: Exported) -> None:
    config = read_json(exported("mistral").hf_dir / "config.json")
    assert read_network(config, source="config.json").exact_context is None
    assert read_network(config | {"sliding_window": 100}, source="config.json").exact_context == 100
    assert read_network(config | {"sliding_window": 512}, source="config.json").exact_context is None
    assert GGUFReader(exported("phi3 for long texts").gguf).fields["phi3.context_length"].contents() == 256


def test_wound_a_failed_export_leaves_half_a_gguf(tmp_path: Any) -> None:
    """A missing tensor (found when llama.cpp loads the result) and a value that float16 cannot hold."""
    hf_dir = save_model(tmp_path / "hf", "gemma2", gemma_tokenizer(), num_hidden_layers=1)
    out = tmp_path / "m.gguf"
    out.write_text("older")
    edit_json(hf_dir / "config.json", num_hidden_layers=2, layer_types=None)
    with pytest.raises(ExportError, match=r"cannot load what its converter wrote: .*blk\.1\."):
        convert_to_gguf(hf_dir, out)
    edit_json(hf_dir / "config.json", num_hidden_layers=1)
    model = AutoModelForCausalLM.from_pretrained(hf_dir)
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight[0, 0] = 1e6
    model.save_pretrained(hf_dir)
    with pytest.raises(ExportError, match=r"blk\.0\.ffn_up\.weight has values that float16 cannot hold.*outtype='f32'"):
        convert_to_gguf(hf_dir, out)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["hf", "m.gguf"] and out.read_text() == "older"


def test_a_crash_of_the_converter_is_an_error_here(
    exported: Exported, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    crash = tmp_path / "crash.py"
    crash.write_text("import os, sys\nprint('no memory left', file=sys.stderr)\nsys.stderr.flush()\nos.abort()\n")
    monkeypatch.setattr(converter_worker, "__file__", str(crash))
    with pytest.raises(ExportError, match=r"exit code -6\).*no memory left"):
        convert_to_gguf(exported("qwen3").hf_dir, tmp_path / "m.gguf")
    assert [file.name for file in tmp_path.iterdir()] == ["crash.py"]


def test_without_the_converter_the_line_that_fetches_it_is_said(
    exported: Exported, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    hf_dir = exported("qwen3").hf_dir
    monkeypatch.delenv(converter_source.ENVIRONMENT, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(ExportError, match=r"Run `promptopt doctor --fetch-converter` once"):
        convert_to_gguf(hf_dir, tmp_path / "m.gguf")
    monkeypatch.setenv(converter_source.ENVIRONMENT, str(tmp_path))
    with pytest.raises(ExportError, match=r"PROMPTOPT_LLAMA_CPP is .*holds no conversion/base\.py"):
        convert_to_gguf(hf_dir, tmp_path / "m.gguf")
