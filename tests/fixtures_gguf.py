"""A tiny random Llama as a GGUF file, and the same tokenizer for transformers, written anew in every test run."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

CORPUS = (
    "The quick brown fox jumps over the lazy dog. Answer the question with one word.",
    "Question: what is the capital of Japan? Answer: Tokyo. 12 + 30 = 42.",
    "東京は日本の首都です。質問に一言で答えてください。日本語の文章。",
    "context question answer reasoning user assistant system",
)
SPECIAL_TOKENS = (
    "<|endoftext|>", "<|begin|>", "<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>",
    "<|eot_id|>", "<start_of_turn>", "<end_of_turn>", "[INST]", "[/INST]",
)  # fmt: skip

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + "
    "'<|im_end|>' + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA3 = (
    "{{- bos_token }}\n{%- for message in messages %}\n    {{- '<|start_header_id|>' + message['role'] + "
    "'<|end_header_id|>\\n\\n' + message['content'] | trim + '<|eot_id|>' }}\n{%- endfor %}\n"
    "{%- if add_generation_prompt %}\n    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}\n{%- endif %}\n"
)
MISTRAL = (
    "{%- if messages[0]['role'] == 'system' %}{%- set system = messages[0]['content'] %}{%- set rest = messages[1:] %}"
    "{%- else %}{%- set system = '' %}{%- set rest = messages %}{%- endif %}{{- bos_token }}{%- for m in rest %}"
    "{%- if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{- raise_exception('must alternate') }}{%- endif %}"
    "{%- if m['role'] == 'user' %}{{- '[INST] ' }}{%- if loop.last and system %}{{- system + '\n\n' }}{%- endif %}"
    "{{- m['content'] + ' [/INST]' }}{%- else %}{{- ' ' + m['content'] + eos_token }}{%- endif %}{%- endfor %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}{% for message in messages %}{% if message['role'] == 'assistant' %}{% set role = 'model' %}{% else %}"
    "{% set role = message['role'] %}{% endif %}{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + "
    "'<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}"
)
TEMPLATES = {"chatml": CHATML, "llama3": LLAMA3, "mistral": MISTRAL, "gemma": GEMMA}


@cache
def tiny_tokenizer() -> Any:
    """Return a byte-level BPE `tokenizers.Tokenizer` of about 420 tokens."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in SPECIAL_TOKENS])
    return tokenizer


def hf_tokenizer(template: str) -> Any:
    """Return the same tokenizer as a transformers one, with `template` as its chat template."""
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tiny_tokenizer(), bos_token="<|begin|>", eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    tokenizer.chat_template = template
    return tokenizer


def write_tiny_gguf(
    path: Path,
    *,
    template: str | None = CHATML,
    file_type: str = "f32",
    n_ctx_train: int = 512,
    seed: int = 0,
    width: int = 64,
    n_layers: int = 2,
    architecture: str = "llama",
    metadata: Mapping[str, str] = MappingProxyType({}),
) -> Path:
    """Write a random Llama (f32, f16 or q8_0) to `path`, with `metadata` as extra keys."""
    import gguf

    writer = gguf.GGUFWriter(path, architecture)
    for key, value in metadata.items():
        writer.add_string(key, value)
    heads, kv_heads, hidden = 4, 2, 2 * width
    writer.add_name("tiny")
    writer.add_context_length(n_ctx_train)
    writer.add_embedding_length(width)
    writer.add_block_count(n_layers)
    writer.add_feed_forward_length(hidden)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(width // heads)
    writer.add_file_type({"f32": 0, "f16": 1, "q8_0": 7}[file_type])
    _add_tokenizer(writer, template)
    rng = np.random.default_rng(seed)
    n_vocab = tiny_tokenizer().get_vocab_size()
    shapes: dict[str, tuple[int, ...]] = {"token_embd": (n_vocab, width), "output": (n_vocab, width)}
    for layer in range(n_layers):
        prefix = f"blk.{layer}."
        kv_width = width // heads * kv_heads
        shapes |= {prefix + "attn_q": (width, width), prefix + "attn_output": (width, width)}
        shapes |= {prefix + "attn_k": (kv_width, width), prefix + "attn_v": (kv_width, width)}
        shapes |= {prefix + "ffn_gate": (hidden, width), prefix + "ffn_up": (hidden, width)}
        shapes |= {prefix + "ffn_down": (width, hidden)}
    for name, shape in shapes.items():
        scale = 1.0 if name == "token_embd" else 2.0 / np.sqrt(shape[1])
        _add_matrix(writer, f"{name}.weight", (rng.standard_normal(shape) * scale).astype(np.float32), file_type)
    for name in ["output_norm", *(f"blk.{n}.{kind}_norm" for n in range(n_layers) for kind in ("attn", "ffn"))]:
        writer.add_tensor(f"{name}.weight", np.ones(width, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def write_tiny_lora(path: Path, *, seed: int, width: int = 64, n_layers: int = 2, rank: int = 4) -> Path:
    """Write random LoRA weights for the model of `write_tiny_gguf`, strong enough to change its answers."""
    import gguf

    writer = gguf.GGUFWriter(path, "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 2.0 * rank)
    rng = np.random.default_rng(seed)
    for layer in range(n_layers):
        for name in ("attn_q", "attn_output"):
            for part, shape in (("a", (rank, width)), ("b", (width, rank))):
                values = (rng.standard_normal(shape) / np.sqrt(rank)).astype(np.float32)
                writer.add_tensor(f"blk.{layer}.{name}.weight.lora_{part}", values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add_matrix(writer: Any, name: str, values: np.ndarray[Any, Any], file_type: str) -> None:
    import gguf

    if file_type == "f16":
        writer.add_tensor(name, values.astype(np.float16))
    elif file_type == "q8_0":
        kind = gguf.GGMLQuantizationType.Q8_0
        writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
    else:
        writer.add_tensor(name, values)


def _add_tokenizer(writer: Any, template: str | None) -> None:
    import gguf

    tokenizer = tiny_tokenizer()
    vocab = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    control, normal = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([text for text, _ in vocab])
    writer.add_token_types([control if text in SPECIAL_TOKENS else normal for text, _ in vocab])
    import json

    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in merges])
    ids = dict(vocab)
    writer.add_bos_token_id(ids["<|begin|>"])
    writer.add_eos_token_id(ids["<|im_end|>"])
    writer.add_pad_token_id(ids["<|endoftext|>"])
    writer.add_add_bos_token(False)
    if template is not None:
        writer.add_chat_template(template)
