"""Random Llamas as GGUF files, of any size and quantization: what speed is measured on where nothing is downloaded.

The vocabulary is about 7,400 made-up words beside all bytes. Only words that their own text is read back as
can be generated (the output rows of all others are zero): answers never end early and survive the way through text.
"""

import json
import os
import random
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from promptopt.export.quantize import quantize_gguf
from promptopt.user_cache import user_cache_dir

RECIPE = 1
"""Part of every file's name: raise it when files would come out differently."""
VOCABULARY = 8192
CONTEXT = 8192
SPECIAL_TOKENS = ("<|endoftext|>", "<|begin|>", "<|im_start|>", "<|im_end|>")
TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + "
    "'<|im_end|>' + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@dataclass(frozen=True, slots=True)
class Shape:
    """What decides a Llama's number of weights."""

    width: int
    layers: int
    hidden: int
    heads: int
    kv_heads: int


SHAPES = {
    "3m": Shape(256, 2, 768, 4, 2),
    "30m": Shape(512, 8, 2048, 8, 4),
    "150m": Shape(1024, 12, 3072, 16, 4),
    "1b": Shape(2048, 16, 8192, 32, 8),
}
TYPES = ("f16", "q8_0", "q6_k", "q5_k_m", "q4_k_m", "q4_0")


def random_model(size: str, file_type: str, folder: Path | None = None, *, seed: int = 0) -> Path:
    """Return a random Llama, written at the first call.

    Args:
        size: one of `SHAPES`.
        file_type: one of `TYPES`; all types of a size are made of the same f16 weights.
        folder: where files are kept; None = the user's cache.
    """
    folder = folder or user_cache_dir() / "benchmarks"
    stem = f"random-llama-{size}-recipe{RECIPE}-seed{seed}"
    path = folder / f"{stem}-{file_type}.gguf"
    if path.is_file():
        return path
    if file_type != "f16":
        quantize_gguf(random_model(size, "f16", folder, seed=seed), path, file_type)  # type: ignore[arg-type]
        return path
    folder.mkdir(parents=True, exist_ok=True)
    half = path.with_suffix(f".{os.getpid()}.part")
    _write(half, SHAPES[size], f"random-{size}", seed)
    half.replace(path)
    return path


@cache
def word_tokenizer() -> Any:
    """Return a byte-level BPE `tokenizers.Tokenizer` of `VOCABULARY` tokens, most of them whole made-up words."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    syllables = [consonant + vowel for consonant in "bdfghjklmnprstvwxz" for vowel in "aeiou"]
    words = [first + second for first in syllables for second in syllables]
    random.Random(0).shuffle(words)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator((" " + word for word in words), trainer)
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in SPECIAL_TOKENS])
    return tokenizer


def word_tokens(tokenizer: Any) -> list[int]:
    """Return the tokens that are a blank and a word, and that their own text is read back as."""
    vocabulary = tokenizer.get_vocab()
    words = {text[1:]: token for text, token in vocabulary.items() if text[:1] == "Ġ" and text[1:].isalpha()}
    return sorted(token for word, token in words.items() if tokenizer.encode(" " + word).ids == [token])


def _write(path: Path, shape: Shape, name: str, seed: int) -> None:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name(name)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.hidden)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(shape.width // shape.heads)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(VOCABULARY)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    _add_tokenizer(writer)
    _add_weights(writer, shape, np.random.default_rng(seed))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_weights(writer: Any, shape: Shape, rng: np.random.Generator) -> None:
    kv_width = shape.width // shape.heads * shape.kv_heads
    shapes = {"token_embd": (VOCABULARY, shape.width), "output": (VOCABULARY, shape.width)}
    norms = ["output_norm"]
    for layer in range(shape.layers):
        block = f"blk.{layer}."
        shapes |= {block + "attn_q": (shape.width, shape.width), block + "attn_output": (shape.width, shape.width)}
        shapes |= {block + "attn_k": (kv_width, shape.width), block + "attn_v": (kv_width, shape.width)}
        shapes |= {block + "ffn_gate": (shape.hidden, shape.width), block + "ffn_up": (shape.hidden, shape.width)}
        shapes |= {block + "ffn_down": (shape.width, shape.hidden)}
        norms += [block + "attn_norm", block + "ffn_norm"]
    for name, size in shapes.items():
        values = rng.standard_normal(size, dtype=np.float32)
        if name != "token_embd":
            values /= np.sqrt(size[1])
        if name == "output":
            # A logit of exactly 0 is never the largest of thousands.
            values[np.setdiff1d(np.arange(VOCABULARY), word_tokens(word_tokenizer()))] = 0.0
        writer.add_tensor(f"{name}.weight", values.astype(np.float16))
    for name in norms:
        writer.add_tensor(f"{name}.weight", np.ones(shape.width, dtype=np.float32))


def _add_tokenizer(writer: Any) -> None:
    tokenizer = word_tokenizer()
    ids = tokenizer.get_vocab()
    vocabulary = sorted(ids, key=ids.__getitem__)
    assert len(vocabulary) == VOCABULARY, len(vocabulary)
    control, normal = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(vocabulary)
    writer.add_token_types([control if text in SPECIAL_TOKENS else normal for text in vocabulary])
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in merges])
    writer.add_bos_token_id(ids["<|begin|>"])
    writer.add_eos_token_id(ids["<|im_end|>"])
    writer.add_pad_token_id(ids["<|endoftext|>"])
    writer.add_add_bos_token(False)
    writer.add_chat_template(TEMPLATE)
