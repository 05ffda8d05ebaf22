"""Turns a Hugging Face tokenizer (byte-level BPE, or BPE with byte fallback) into what GGUF embeds of it.

Byte-level tokenizers are read from `tokenizer.json` alone. Those with byte fallback are read as transformers loads
them: it rebuilds some from class and vocabulary, and what it made of them is what the model was trained on. Knows
nothing about weights.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from promptopt.errors import ExportError
from promptopt.export.end_tokens import SpecialIds, read_special_ids
from promptopt.export.gguf_tokenizer import GgufTokenizer, TokenType
from promptopt.export.hf_folder import read_json
from promptopt.export.pre_tokenizer import recognise
from promptopt.export.quiet import quiet_libraries
from promptopt.export.sentencepiece import (
    SPACE,
    byte_tokens,
    is_sentencepiece_like,
    prefix_space,
    scores,
    strips_like_phi3,
)
from promptopt.extras import require


def read_tokenizer(hf_dir: Path, vocab_size: int) -> GgufTokenizer:
    """Read the tokenizer of a Hugging Face model folder.

    Args:
        hf_dir: folder with `tokenizer.json`, and as far as there are `tokenizer_config.json`, `chat_template.jinja`,
            `generation_config.json`, `config.json`.
        vocab_size: rows of the embedding matrix.

    Raises:
        ExportError: a tokenizer that llama.cpp would read differently.
    """
    source = str(hf_dir / "tokenizer.json")
    tokenizer = read_json(hf_dir / "tokenizer.json")
    if not tokenizer:
        raise ExportError(
            f"{source} is missing; the export needs a fast tokenizer. Load and save it once with "
            "transformers.AutoTokenizer, which converts tokenizer.model or vocab.json."
        )
    config = read_json(hf_dir / "tokenizer_config.json")
    template = _chat_template(hf_dir, config)
    if is_sentencepiece_like(tokenizer):
        return _with_byte_fallback(hf_dir, vocab_size, config, template, source)
    _refuse_variants(tokenizer, source)
    added = _added_tokens(tokenizer, config)
    _refuse_stripping(added.values(), ("lstrip", "rstrip", "single_word"), source)
    tokens, types = _vocabulary(tokenizer["model"]["vocab"], added, vocab_size, byte_symbols(), source)
    special = read_special_ids(hf_dir, config, tokens, template or "")
    add_bos, add_eos = _surroundings(tokenizer.get("post_processor"), tokens, special, source)
    return GgufTokenizer(
        kind="gpt2",
        pre_tokenizer=recognise(tokenizer),
        tokens=tokens,
        types=types,
        merges=tuple(pair if isinstance(pair, str) else " ".join(pair) for pair in tokenizer["model"]["merges"]),
        special=special,
        add_bos=add_bos,
        add_eos=add_eos,
        chat_template=template,
    )


def _with_byte_fallback(
    hf_dir: Path, vocab_size: int, config: Mapping[str, Any], template: str | None, source: str
) -> GgufTokenizer:
    with quiet_libraries():
        loaded = require("transformers").AutoTokenizer.from_pretrained(hf_dir)
    tokenizer = json.loads(loaded.backend_tokenizer.to_str())
    added = _added_tokens(tokenizer, {})
    _refuse_stripping(added.values(), ("lstrip", "single_word"), source)
    tokens, kinds = _vocabulary(tokenizer["model"]["vocab"], added, vocab_size, byte_tokens(), source)
    special = read_special_ids(hf_dir, config, tokens, template or "")
    add_bos, add_eos = _surroundings(tokenizer.get("post_processor"), tokens, special, source)
    bytes_, added_texts = set(byte_tokens()), {token["content"] for token in added.values()}
    types = [TokenType.BYTE if text in bytes_ else kind for text, kind in zip(tokens, kinds, strict=True)]
    if special.unk is not None:
        types[special.unk] = TokenType.UNKNOWN
    # Matched in text that still has spaces, a token with ▁ is never found; but it is made by merges, and must be
    # written as the spaces it stands for.
    types = [
        TokenType.NORMAL if kind is TokenType.USER_DEFINED and SPACE in text else kind
        for text, kind in zip(tokens, types, strict=True)
    ]
    prefix = prefix_space(tokenizer, source=source)
    return GgufTokenizer(
        kind="llama",
        pre_tokenizer="default",
        tokens=tokens,
        types=tuple(types),
        merges=(),
        special=special,
        add_bos=add_bos,
        add_eos=add_eos,
        chat_template=template,
        scores=tuple(scores(tokens, tokenizer["model"]["merges"])),
        # llama.cpp knows "always" and "never". Prompts that begin with a special token are the same under "first" and
        # "never"; others are the same under "first" and "always".
        space_prefix=prefix == "always" or (prefix == "first" and not _prompts_begin_with(loaded, added_texts)),
        strips_right=strips_like_phi3(list(added.values()), source=source),
    )


def _prompts_begin_with(loaded: Any, texts: set[str]) -> bool:
    """Say whether the chat prompts of a tokenizer begin with one of its whole-text tokens."""
    if loaded.chat_template is None:
        return False
    prompt = loaded.apply_chat_template([{"role": "user", "content": "x"}], add_generation_prompt=True, tokenize=False)
    return str(prompt).startswith(tuple(texts))


def _refuse_variants(tokenizer: Mapping[str, Any], source: str) -> None:
    """Stop at kinds of tokenizers whose text llama.cpp would cut into other tokens."""
    model = tokenizer.get("model", {})
    if model.get("type") != "BPE":
        raise ExportError(
            f"{source} is a {model.get('type')} tokenizer; the export writes byte-level BPE (Llama 3, Qwen, GPT-2, "
            "SmolLM) and BPE with byte fallback (Llama 2, Mistral, Gemma, Phi 3). Convert such a model with "
            "llama.cpp's convert_hf_to_gguf.py and give the GGUF as model.gguf."
        )
    for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(key):
            raise ExportError(f"{source} has {key} = {model[key]!r}, which llama.cpp does not know; allowed is none.")
    # Qwen2 composes characters (NFC) first, llama.cpp never does: equal for all text that is composed already.
    normalizer = tokenizer.get("normalizer")
    if normalizer is not None and normalizer.get("type") != "NFC":
        raise ExportError(f"{source} normalizes text by {normalizer!r}; allowed are NFC and none.")


def _added_tokens(tokenizer: Mapping[str, Any], config: Mapping[str, Any]) -> dict[int, Mapping[str, Any]]:
    """Return tokens that are matched as whole text, by id, from both files that may define them."""
    added = {int(token["id"]): token for token in tokenizer.get("added_tokens", ())}
    for number, token in config.get("added_tokens_decoder", {}).items():
        added.setdefault(int(number), token)
    return added


def _refuse_stripping(added: Iterable[Mapping[str, Any]], flags: Iterable[str], source: str) -> None:
    for token in added:
        stripping = [flag for flag in flags if token.get(flag)]
        if stripping:
            raise ExportError(
                f"The token {token['content']!r} in {source} has {', '.join(stripping)} set, which GGUF cannot say; "
                "the same text would give other tokens. Set it to false in the tokenizer and train again with it."
            )


def _vocabulary(
    vocab: Mapping[str, int],
    added: Mapping[int, Mapping[str, Any]],
    vocab_size: int,
    alphabet: Sequence[str],
    source: str,
) -> tuple[tuple[str, ...], tuple[TokenType, ...]]:
    """Return text and type of every id below `vocab_size`; `alphabet` is what the 256 bytes are called."""
    texts = {number: text for text, number in vocab.items()}
    # Gemma calls the byte 9 both "<0x09>" and by itself.
    texts |= {vocab[symbol]: symbol for symbol in alphabet if symbol in vocab}
    texts |= {number: t["content"] for number, t in added.items()}
    if texts and max(texts) >= vocab_size:
        raise ExportError(
            f"{source} has token ids up to {max(texts)}, but the model only {vocab_size} embeddings. Call "
            "model.resize_token_embeddings(len(tokenizer)) and train, or save the tokenizer that belongs to the model."
        )
    missing = [symbol for symbol in alphabet if symbol not in vocab]
    if missing:
        raise ExportError(
            f"{source} lacks {len(missing)} of the 256 byte symbols (first: {missing[0]!r}), so some text has no "
            "tokens. Train the tokenizer with all of them (initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), or "
            "byte_fallback=True in SentencePiece)."
        )
    tokens = tuple(texts.get(number, f"[PAD{number}]") for number in range(vocab_size))
    if len(set(tokens)) < len(tokens):
        twice = next(text for number, text in enumerate(tokens) if text in tokens[:number])
        raise ExportError(f"{source} holds the token {twice!r} under two ids; llama.cpp allows one. Remove one.")
    return tokens, tuple(_token_type(number, texts, added) for number in range(vocab_size))


def _token_type(number: int, texts: Mapping[int, str], added: Mapping[int, Mapping[str, Any]]) -> TokenType:
    if number in added:
        return TokenType.CONTROL if added[number].get("special") else TokenType.USER_DEFINED
    return TokenType.NORMAL if number in texts else TokenType.UNUSED


def byte_symbols() -> list[str]:
    """Return the 256 printable characters that stand for bytes in byte-level BPE (GPT-2's table), in byte order."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    symbol = {byte: chr(byte) for byte in printable} | {byte: chr(256 + rank) for rank, byte in enumerate(others)}
    return [symbol[byte] for byte in range(256)]


def _chat_template(hf_dir: Path, config: Mapping[str, Any]) -> str | None:
    """Return the default chat template; as in transformers, a file of its own overrides the configuration."""
    file = hf_dir / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    found = config.get("chat_template")
    if isinstance(found, list):
        return next((str(entry["template"]) for entry in found if entry["name"] == "default"), None)
    return found


def _surroundings(
    processor: Mapping[str, Any] | None, tokens: tuple[str, ...], special: SpecialIds, source: str
) -> tuple[bool, bool]:
    """Return whether the tokenizer puts the bos token before and the eos token behind plain text."""
    pieces = [
        piece for step in _processors(processor) if step["type"] == "TemplateProcessing" for piece in step["single"]
    ]
    names = ["text" if "Sequence" in piece else piece["SpecialToken"]["id"] for piece in pieces]
    bos = tokens[special.bos] if special.bos is not None else None
    eos = tokens[special.eos]
    before, _, behind = _parted(names)
    if before not in ([], [bos]) or behind not in ([], [eos]):
        raise ExportError(
            f"The post-processor of {source} writes {' '.join(names)}; GGUF can express bos ({bos!r}) before and eos "
            f"({eos!r}) behind the text."
        )
    return bool(before), bool(behind)


def _processors(processor: Mapping[str, Any] | None) -> Iterable[Mapping[str, Any]]:
    if processor is None:
        return []
    return processor["processors"] if processor["type"] == "Sequence" else [processor]


def _parted(names: list[str]) -> tuple[list[str], str, list[str]]:
    """Part ["<s>", "text"] at the text."""
    if "text" not in names:
        return [], "text", []
    middle = names.index("text")
    return names[:middle], "text", names[middle + 1 :]
