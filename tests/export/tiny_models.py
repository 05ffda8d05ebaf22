"""Tiny random models of each supported architecture, with tokenizers trained on the spot. Nothing is downloaded."""

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from promptopt.export.pre_tokenizer import LLAMA3_REGEX, QWEN2_REGEX

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
LLAMA3_CHAT = (
    "{{ bos_token }}{% for message in messages %}{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'"
    " + message['content'] + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"
)
TEXTS = [
    "The answer is 42, isn't it? She'll say they've gone; WE'RE here and I'M not.",
    "日本語の文書です。質問に答えてください。東京は日本の首都です。",
    "def f(x):\n    return x ** 2  # comment\n\n\n\tprint(f(10), 2026, 3.14159)",
    "## document\nAnna bought 3 red bicycles in Zürich.\n\n[[ ## answer ## ]]\nthree\r\n",
    '{"name": "Ōsaka", "value": 12345678, "list": [1, 2, 3]}  <answer>ok</answer>',
]


def bpe(kind: str, vocab_size: int = 384) -> Tokenizer:
    """Train a byte-level BPE with the pre-tokenizer `kind`: qwen2, llama3, llama3-merged, gpt2 or smollm."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=kind == "llama3"))
    whole = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    match kind:
        case "gpt2":
            tokenizer.pre_tokenizer = whole
        case "smollm":
            tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), whole])
        case _:
            split = pre_tokenizers.Split(Regex(QWEN2_REGEX if kind == "qwen2" else LLAMA3_REGEX), behavior="isolated")
            bytes_only = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
            tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, bytes_only])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
        min_frequency=1,
    )
    tokenizer.train_from_iterator(TEXTS * 3, trainer)
    return tokenizer


def chatml_tokenizer(kind: str = "qwen2") -> PreTrainedTokenizerFast:
    """A ChatML tokenizer without bos, as the starter model has it, plus one token that is added but not special."""
    tokenizer = bpe(kind)
    tokenizer.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    tokenizer.add_tokens([AddedToken("<think>", normalized=False)])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    fast.chat_template = CHATML
    return fast


def llama3_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer like Llama 3's: bos before every text, `ignore_merges`, several end tokens."""
    tokenizer = bpe("llama3")
    specials = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    tokenizer.add_special_tokens(specials)
    bos = specials[0]
    add_bos = processors.TemplateProcessing(single=f"{bos} $A", special_tokens=[(bos, tokenizer.token_to_id(bos))])
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), add_bos])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=bos, eos_token="<|eot_id|>")
    fast.chat_template = LLAMA3_CHAT
    return fast


SHAPE: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.2,
}


def save_model(out: Path, network: str, tokenizer: PreTrainedTokenizerFast, seed: int = 0, **changes: Any) -> Path:
    """Save a random model of the architecture `network` ("llama" or "qwen2") with its tokenizer; return its folder.

    Args:
        changes: configuration values; `dtype` and `max_shard_size` choose how the weights are stored, `pad_vocab` adds
            embedding rows that no token uses.
    """
    torch.manual_seed(seed)
    dtype = changes.pop("dtype", torch.float32)
    shard = changes.pop("max_shard_size", "1GB")
    vocab_size = len(tokenizer) + changes.pop("pad_vocab", 0)
    values = {
        **SHAPE,
        "vocab_size": vocab_size,
        "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": None,
        **changes,
    }
    model = LlamaForCausalLM(LlamaConfig(**values)) if network == "llama" else Qwen2ForCausalLM(Qwen2Config(**values))
    for name, parameter in model.named_parameters():
        # Norms of one and biases of zero would hide a mix-up.
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, mean=0.0 if name.endswith("bias") else 1.0, std=0.3)
    model.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id, do_sample=True, temperature=0.7)
    model.to(dtype).save_pretrained(out, max_shard_size=shard)
    tokenizer.save_pretrained(out)
    return out


def edit_json(path: Path, **changes: Any) -> None:
    """Change keys of a JSON object on disk; None removes a key."""
    found = json.loads(path.read_text(encoding="utf-8"))
    found.update(changes)
    path.write_text(json.dumps({key: value for key, value in found.items() if value is not None}), encoding="utf-8")
