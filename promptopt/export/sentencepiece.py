"""Turns a BPE tokenizer with byte fallback (Llama 2, Mistral, Gemma, Phi 3) into llama.cpp's kind of SentencePiece.

The two work differently: Hugging Face joins the pair that stands first in a list of merges, llama.cpp the neighbours
whose joint text has the highest score. With the negated rank of the first merge that makes a token as its score, both
join in the same order, as far as the merges were derived from SentencePiece scores; parity proves it on real prompts.

llama.cpp's own converter reads scores from `tokenizer.model`, which transformers 5 no longer saves, and gives all
tokens one score without it: other tokens than those the model was trained on.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from promptopt.errors import ExportError

SPACE = "▁"
PrefixSpace = Literal["always", "first", "never"]
"""Where the tokenizer puts a space before text: before every piece between special tokens, the first one, or none."""

_REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
_PREPEND = {"type": "Prepend", "prepend": SPACE}
_UNMERGED = -1e9
"""Score of a token that no merge makes: llama.cpp joins it last, if at all."""


def is_sentencepiece_like(tokenizer: Mapping[str, Any]) -> bool:
    """Say whether a parsed `tokenizer.json` is a BPE that falls back to bytes."""
    model = tokenizer.get("model", {})
    return model.get("type") == "BPE" and bool(model.get("byte_fallback"))


def byte_tokens() -> list[str]:
    """Return the names of the 256 byte tokens, in byte order."""
    return [f"<0x{byte:02X}>" for byte in range(256)]


def prefix_space(tokenizer: Mapping[str, Any], *, source: str) -> PrefixSpace:
    """Return where a parsed `tokenizer.json` puts a space before text.

    Raises:
        ExportError: it changes text in a way llama.cpp does not.
    """
    normalizer, splitter = tokenizer.get("normalizer"), tokenizer.get("pre_tokenizer")
    steps = normalizer["normalizers"] if normalizer and normalizer["type"] == "Sequence" else [normalizer or {}]
    # Gemma's splitter looks for spaces, of which the normalizer has left none.
    no_split = splitter is None or (splitter.get("type") == "Split" and splitter.get("pattern") == {"String": " "})
    if steps == [_PREPEND, _REPLACE] and no_split:
        return "always"
    if steps == [_REPLACE] and no_split:
        return "never"
    if steps == [{}] and _is_metaspace(splitter, tokenizer["model"]["vocab"]):
        scheme: PrefixSpace = splitter["prepend_scheme"] if splitter else "never"
        return scheme
    raise ExportError(
        f"{source} changes text by the normalizer {normalizer!r} and the pre-tokenizer {splitter!r}. A tokenizer with "
        "byte fallback may replace spaces by ▁ and put one in front, nothing else: llama.cpp would cut other tokens."
    )


def _is_metaspace(splitter: Mapping[str, Any] | None, vocab: Mapping[str, int]) -> bool:
    if splitter is None or splitter.get("type") != "Metaspace" or splitter.get("replacement") != SPACE:
        return False
    # A splitter that cuts at spaces agrees with llama.cpp, which does not, if no token reaches across a space.
    return not splitter.get("split", True) or not any(SPACE in token[1:] for token in vocab)


def scores(tokens: Sequence[str], merges: Sequence[str | Sequence[str]]) -> list[float]:
    """Return each token's score, of shape (len(tokens),): higher is joined earlier.

    Args:
        merges: "left right" or (left, right), best first.
    """
    first: dict[str, int] = {}
    for rank, pair in enumerate(merges):
        left, right = pair.split(" ") if isinstance(pair, str) else pair
        first.setdefault(left + right, rank)
    return [-float(first[token]) if token in first else _UNMERGED for token in tokens]


def strips_like_phi3(added: Sequence[Mapping[str, Any]], *, source: str) -> bool:
    """Say whether tokens swallow the white space behind them, as those of Phi 3 do.

    llama.cpp knows this of models by their name alone: of all whole-text tokens but `<unk>`, `<s>` and `<|endoftext|>`.

    Raises:
        ExportError: they do it in another way, which GGUF cannot say.
    """
    stripping = {token["content"] for token in added if token.get("rstrip")}
    if not stripping:
        return False
    plain = {token["content"] for token in added} - stripping
    if plain <= {"<unk>", "<s>", "<|endoftext|>"} and "</s>" in stripping:
        return True
    raise ExportError(
        f"The tokens {', '.join(sorted(stripping))} in {source} swallow the white space behind them (rstrip), which "
        "GGUF can only say of Phi 3's set of tokens. Set it to false in the tokenizer and train again with it."
    )
