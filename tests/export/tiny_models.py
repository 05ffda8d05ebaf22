"""Tiny random models of each supported architecture, with tokenizers trained on the spot. Nothing is downloaded."""

import functools
import io
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaTokenizer,
    GenerationConfig,
    LlamaConfig,
    LlamaTokenizer,
    MistralConfig,
    Phi3Config,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
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
MISTRAL_CHAT = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ '[INST] ' + message['content'] + ' [/INST]' }}{% else %}{{ ' ' + message['content'] + eos_token }}{% endif %}"
    "{% endfor %}"
)
GEMMA_CHAT = (
    "{{ bos_token }}{% for message in messages %}{{ '<start_of_turn>' + message['role'] + '\n' + message['content']"
    " | trim + '<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}"
)
PHI3_CHAT = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\n' + message['content'] + '<|end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
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


@functools.cache
def pieces(*own: str) -> tuple[dict[str, int], tuple[tuple[str, str], ...]]:
    """Train SentencePiece's BPE with byte fallback; return vocabulary and merges as transformers derives them.

    Args:
        own: pieces that are in the vocabulary whatever the texts are.
    """
    import sentencepiece
    from transformers.tokenization_utils_base import generate_merges

    made = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS * 3), model_writer=made, model_type="bpe", vocab_size=560, byte_fallback=True,
        normalization_rule_name="identity", remove_extra_whitespaces=False, allow_whitespace_only_pieces=True,
        user_defined_symbols=list(own), minloglevel=2,
    )  # fmt: skip
    model = sentencepiece.SentencePieceProcessor(model_proto=made.getvalue())
    vocab = {model.IdToPiece(number): number for number in range(model.vocab_size())}
    scores = {text: model.GetScore(number) for text, number in vocab.items() if not model.IsByte(number)}
    specials = {"<unk>", "<s>", "</s>"}
    merges = generate_merges(vocab, {text: score for text, score in scores.items() if text not in specials}, specials)
    return vocab, tuple(merges)


def _byte_fallback(vocab: dict[str, int], merges: tuple[tuple[str, str], ...]) -> Tokenizer:
    """A BPE as in the tokenizer.json of Llama 2 and Phi 3: a space before every piece of text."""
    made = Tokenizer(models.BPE(vocab=vocab, merges=list(merges), byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    made.decoder = decoders.Sequence(steps)
    return made


def llama2_tokenizer() -> PreTrainedTokenizerFast:
    """Like Llama 2's: a space before every piece of text between special tokens, bos before everything."""
    backend = _byte_fallback(*pieces())
    backend.add_special_tokens(["<unk>", "<s>", "</s>"])
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    fast = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    fast.chat_template = MISTRAL_CHAT
    return fast


def mistral_tokenizer() -> PreTrainedTokenizerBase:
    """Like Mistral 0.3's, in transformers' own class: a space before the first text only; [INST] is a token."""
    vocab, merges = pieces()
    made = LlamaTokenizer(vocab=dict(vocab), merges=list(merges), legacy=False, add_bos_token=True)
    made.add_special_tokens({"additional_special_tokens": ["[INST]", "[/INST]"]})
    made.chat_template = MISTRAL_CHAT
    return made


def gemma_tokenizer() -> PreTrainedTokenizerBase:
    """Like Gemma's, in transformers' own class: no space in front, tokens of several spaces or line ends."""
    vocab, merges = pieces("▁▁", "▁▁▁", "▁▁▁▁", "\n", "\n\n")
    named = {"<unk>": "<unk>", "<s>": "<bos>", "</s>": "<eos>"}
    renamed = {named.get(text, text): number for text, number in vocab.items()}
    added = [AddedToken(text, normalized=False) for text in ("▁▁", "▁▁▁", "▁▁▁▁", "\n", "\n\n", "<table>")]
    renamed |= {"<pad>": len(vocab), "<mask>": len(vocab) + 1}
    made = GemmaTokenizer(vocab=renamed, merges=list(merges), add_bos_token=True)
    made.add_tokens(added)
    made.add_special_tokens({"additional_special_tokens": ["<start_of_turn>", "<end_of_turn>"]})
    made.chat_template = GEMMA_CHAT
    return made


def phi3_tokenizer() -> PreTrainedTokenizerFast:
    """Like Phi 3's: Llama 2's, and tokens that swallow the white space behind them."""
    backend = _byte_fallback(*pieces())
    backend.add_special_tokens(["<unk>", "<s>", "<|endoftext|>"])
    swallowing = ["<|user|>", "<|assistant|>", "<|system|>", "<|end|>"]
    backend.add_tokens([AddedToken("</s>", rstrip=True, normalized=False)])
    backend.add_special_tokens([AddedToken(text, rstrip=True, normalized=False) for text in swallowing])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="<|endoftext|>", pad_token="<|endoftext|>",
        unk_token="<unk>",
    )  # fmt: skip
    fast.chat_template = PHI3_CHAT
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


PHI3_LONG = {
    "rope_parameters": {
        "rope_type": "longrope", "rope_theta": 1e4, "partial_rotary_factor": 1.0,
        "original_max_position_embeddings": 256,
        "short_factor": [1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7], "long_factor": [2.0 + step / 2 for step in range(8)],
    },
    "original_max_position_embeddings": 256,
}  # fmt: skip
GEMMA3_ROPE = {
    "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
    "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
CONFIGS: dict[str, tuple[type[PreTrainedConfig], dict[str, Any]]] = {
    "llama": (LlamaConfig, {}),
    "mistral": (MistralConfig, {"head_dim": 32, "sliding_window": None}),
    "qwen2": (Qwen2Config, {}),
    "qwen3": (Qwen3Config, {"head_dim": 32}),
    "gemma2": (Gemma2Config, {"head_dim": 32, "query_pre_attn_scalar": 32, "sliding_window": 16}),
    "gemma3": (
        Gemma3TextConfig,
        {"head_dim": 32, "query_pre_attn_scalar": 32, "sliding_window": 16, "num_hidden_layers": 7},
    ),
    "phi3": (Phi3Config, {"sliding_window": None, "original_max_position_embeddings": 512}),
}
"""Network -> its configuration, and what a tiny one has beside `SHAPE`."""


def save_model(out: Path, network: str, tokenizer: PreTrainedTokenizerBase, seed: int = 0, **changes: Any) -> Path:
    """Save a random model of a network (a key of `CONFIGS`) with its tokenizer; return its folder.

    Args:
        changes: configuration values; `dtype` and `max_shard_size` choose how the weights are stored, `pad_vocab` adds
            embedding rows that no token uses.
    """
    torch.manual_seed(seed)
    dtype = changes.pop("dtype", torch.float32)
    shard = changes.pop("max_shard_size", "1GB")
    vocab_size = len(tokenizer) + changes.pop("pad_vocab", 0)
    config, own = CONFIGS[network]
    values = {
        **SHAPE,
        **own,
        "vocab_size": vocab_size,
        "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": None,
        "pad_token_id": None,
        **changes,
    }
    model = AutoModelForCausalLM.from_config(config(**values), dtype=torch.float32)
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


@dataclass(frozen=True)
class Kind:
    """A network with the tokenizer that belongs to it.

    Attributes:
        changes: what differs from the plain network.
        own_ends: tokens that end an answer beside eos.
    """

    network: str
    tokenizer: Callable[[], PreTrainedTokenizerBase]
    changes: dict[str, Any] = field(default_factory=dict)
    own_ends: tuple[str, ...] = ()


NETWORKS = {
    "llama": Kind("llama", llama2_tokenizer),
    "llama 3.2": Kind("llama", llama3_tokenizer, {"rope_parameters": LLAMA3_ROPE}, ("<|end_of_text|>",)),
    "mistral": Kind("mistral", mistral_tokenizer),
    "qwen2": Kind("qwen2", chatml_tokenizer, {}, ("<|endoftext|>",)),
    "qwen3": Kind("qwen3", chatml_tokenizer, {}, ("<|endoftext|>",)),
    "gemma2": Kind("gemma2", gemma_tokenizer, {}, ("<end_of_turn>",)),
    "gemma3": Kind("gemma3", gemma_tokenizer, {"rope_parameters": GEMMA3_ROPE}, ("<end_of_turn>",)),
    "phi3": Kind("phi3", phi3_tokenizer, {}, ("<|end|>", "</s>")),
    "phi3 for long texts": Kind("phi3", phi3_tokenizer, PHI3_LONG, ("<|end|>", "</s>")),
}
