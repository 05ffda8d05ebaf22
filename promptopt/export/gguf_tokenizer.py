"""A tokenizer as GGUF holds it, and how it is written. Knows nothing about Hugging Face's files."""

from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Literal

from promptopt.export.end_tokens import SpecialIds


class TokenType(IntEnum):
    """llama.cpp's kinds of tokens; the text of CONTROL and USER_DEFINED tokens is matched before anything else."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True, slots=True)
class GgufTokenizer:
    """A tokenizer as GGUF holds it.

    Attributes:
        kind: llama.cpp's word: "gpt2" for every byte-level BPE, "llama" for every BPE with byte fallback.
        pre_tokenizer: llama.cpp's name; None where its structure is not known here.
        tokens, types: of shape (vocab_size,); ids the tokenizer does not use are UNUSED padding.
        merges: "left right", best first.
        add_bos, add_eos: whether the tokenizer surrounds plain text with these (chat templates write their own).
        chat_template: Jinja source; None for a base model.
        scores: of shape (vocab_size,), for the kind "llama": what is joined first.
        space_prefix: for the kind "llama": whether a space is put before text behind special tokens.
        strips_right: whether whole-text tokens swallow the white space behind them, as llama.cpp does by Phi 3's name.
    """

    kind: Literal["gpt2", "llama"]
    pre_tokenizer: str | None
    tokens: tuple[str, ...]
    types: tuple[TokenType, ...]
    merges: tuple[str, ...]
    special: SpecialIds
    add_bos: bool
    add_eos: bool
    chat_template: str | None
    scores: tuple[float, ...] | None = None
    space_prefix: bool | None = None
    strips_right: bool = False


def add_tokenizer(writer: Any, tokenizer: GgufTokenizer) -> None:
    """Write all keys of the tokenizer to a `gguf.GGUFWriter`."""
    writer.add_tokenizer_model(tokenizer.kind)
    if tokenizer.pre_tokenizer is not None:
        writer.add_tokenizer_pre(tokenizer.pre_tokenizer)
    writer.add_token_list(list(tokenizer.tokens))
    writer.add_token_types([int(kind) for kind in tokenizer.types])
    if tokenizer.scores is not None:
        writer.add_token_scores(list(tokenizer.scores))
    if tokenizer.space_prefix is not None:
        writer.add_add_space_prefix(tokenizer.space_prefix)
    if tokenizer.merges:
        writer.add_token_merges(list(tokenizer.merges))
    special = tokenizer.special
    # Without the key llama.cpp takes id 11, whatever that is, for bos; like Qwen2, name the padding token instead.
    stand_in = special.pad if special.pad is not None else special.eos
    writer.add_bos_token_id(special.bos if special.bos is not None else stand_in)
    writer.add_eos_token_id(special.eos)
    writer.add_eot_token_id(special.eot)
    for number, add in (
        (special.eom, writer.add_eom_token_id),
        (special.pad, writer.add_pad_token_id),
        (special.unk, writer.add_unk_token_id),
    ):
        if number is not None:
            add(number)
    writer.add_add_bos_token(tokenizer.add_bos)
    writer.add_add_eos_token(tokenizer.add_eos)
    if tokenizer.chat_template is not None:
        writer.add_chat_template(tokenizer.chat_template)
