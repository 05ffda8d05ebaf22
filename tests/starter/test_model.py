"""The embedded model: small enough, complete, loadable, with a tokenizer that llama.cpp's qwen2 rules fit."""

import json

import pytest
import tokenizer as recipe

from promptopt.starter.locate import starter_dir

transformers = pytest.importorskip("transformers")
torch = pytest.importorskip("torch")

TEXTS = (
    "The Long Gallery, 12 March 1931.",
    "山田さんは1812年に大阪で生まれました。",
    "don't  stop\n\n[[ ## answer ## ]]\n<a>x</a>\t{}",
    "é ü 🙂",
)


@pytest.fixture(scope="module")
def tok() -> "transformers.PreTrainedTokenizerFast":
    return transformers.AutoTokenizer.from_pretrained(starter_dir())


@pytest.mark.parametrize("text", TEXTS)
def test_tokenizer_round_trip(tok: "transformers.PreTrainedTokenizerFast", text: str) -> None:
    assert tok.decode(tok(text).input_ids) == text


def test_specials_and_pre_tokenizer(tok: "transformers.PreTrainedTokenizerFast") -> None:
    assert tok.convert_tokens_to_ids(list(recipe.SPECIALS)) == [0, 1, 2]
    assert (tok.eos_token, tok.pad_token, tok.bos_token) == ("<|im_end|>", "<|endoftext|>", None)
    data = json.loads((starter_dir() / "tokenizer.json").read_text(encoding="utf-8"))
    split, level = data["pre_tokenizer"]["pretokenizers"]
    assert split["pattern"]["Regex"] == recipe.QWEN2_PATTERN
    assert (level["type"], level["use_regex"], level["add_prefix_space"]) == ("ByteLevel", False, False)


def test_chat_template_renders(tok: "transformers.PreTrainedTokenizerFast") -> None:
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    text = tok.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text == "<|im_start|>system\ns<|im_end|>\n<|im_start|>user\nu<|im_end|>\n<|im_start|>assistant\n"


def test_model_is_small_and_runs(tok: "transformers.PreTrainedTokenizerFast") -> None:
    assert (starter_dir() / "model.safetensors").stat().st_size <= 16_000_000
    net = transformers.AutoModelForCausalLM.from_pretrained(starter_dir(), dtype=torch.float32)
    assert net.num_parameters() <= 10_000_000
    assert net.config.hidden_size % 256 == 0 and net.config.intermediate_size % 256 == 0
    assert len(tok) == net.config.vocab_size
    logits = net(torch.tensor([tok("What is the name?").input_ids])).logits
    assert torch.isfinite(logits).all()
