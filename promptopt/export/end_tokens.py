"""Which ids are special in a model: beginning, padding, and everything that ends what the model says.

Both sides of parity use the same answer, so that a continuation ends at the same token in transformers and llama.cpp.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from promptopt.errors import ExportError
from promptopt.export.hf_folder import read_json

ENDS_BY_TEXT = frozenset(
    (
        *("<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<end_of_turn>", "<|endoftext|>", "</s>"),
        *("<|eom_id|>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]", "<|end_of_text|>", "<end_of_utterance>", "<eos>"),
        *("<|flush|>", "<|calls|>", "<turn|>", "<|tool_response>", "<｜end▁of▁sentence｜>", "[e~["),
        # The next end what fills a gap in code.
        *("<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]", "<|fim_repo|>", "<|repo_name|>", "<fim-repo>"),
        *("<REPO>", "<reponame>", "<|file_sep|>"),
    )
)
"""Tokens that end generation in llama.cpp by their text alone (llama-vocab.cpp), whatever the GGUF says."""


@dataclass(frozen=True, slots=True)
class SpecialIds:
    """Ids of special tokens; None where the model has none.

    Attributes:
        eot: ends a turn. Named explicitly, because llama.cpp would otherwise pick any token with a known text.
        eom: a third end token, where the model has one that llama.cpp does not know by its text.
        ends: all ids that end generation.
    """

    bos: int | None
    eos: int
    pad: int | None
    unk: int | None
    eot: int
    eom: int | None
    ends: frozenset[int]


def read_special_ids(hf_dir: Path, config: Mapping[str, Any], tokens: Sequence[str], template: str) -> SpecialIds:
    """Find the special ids of a model.

    Args:
        config: parsed `tokenizer_config.json`.
        tokens: text of every id.
        template: source of the chat template; "" without one.

    Raises:
        ExportError: no end token, one that is not in the vocabulary, or more than GGUF can name.
    """
    older = read_json(hf_dir / "special_tokens_map.json")
    named = {name: _named(name, (config, older), tokens) for name in ("bos", "eos", "pad", "unk")}
    declared = _declared_ends(hf_dir, len(tokens))
    eos = named["eos"] if named["eos"] is not None else next(iter(declared), None)
    if eos is None:
        raise ExportError(
            f"The tokenizer in {hf_dir} has no end token, so generation would never end. Set tokenizer.eos_token "
            "to the token that ends the assistant's turn and save the tokenizer again."
        )
    by_text = {number for number, text in enumerate(tokens) if text in ENDS_BY_TEXT}
    unknown = [number for number in declared if number != eos and number not in by_text]
    if len(unknown) > 2:
        texts = ", ".join(repr(tokens[number]) for number in unknown)
        raise ExportError(
            f"{hf_dir} declares the end tokens {texts}; beside eos, GGUF can name two that llama.cpp does not know. "
            "Leave the others out of eos_token_id in generation_config.json."
        )
    turn_ends = [*unknown, *(number for number in (eos, *declared) if tokens[number] in template), eos]
    return SpecialIds(
        bos=named["bos"],
        eos=eos,
        pad=named["pad"],
        unk=named["unk"],
        eot=turn_ends[0],
        eom=unknown[1] if len(unknown) > 1 else None,
        ends=frozenset({eos, *declared, *by_text}),
    )


def token_text(entry: Any) -> str | None:
    """Return the text of a special token, which is stored as text or as an object with flags."""
    text = entry.get("content") if isinstance(entry, Mapping) else entry
    return str(text) if text else None


def _named(name: str, sources: Sequence[Mapping[str, Any]], tokens: Sequence[str]) -> int | None:
    text = next((found for source in sources if (found := token_text(source.get(f"{name}_token")))), None)
    if text is None:
        return None
    if text not in tokens:
        raise ExportError(
            f"The {name} token {text!r} is not in the vocabulary. Save the tokenizer that belongs to the model."
        )
    return tokens.index(text)


def _declared_ends(hf_dir: Path, vocab_size: int) -> list[int]:
    """Return the ids at which transformers stops, in order: the generation configuration, else the model's."""
    for file in ("generation_config.json", "config.json"):
        found = read_json(hf_dir / file).get("eos_token_id")
        if found is not None:
            return [number for number in (found if isinstance(found, list) else [found]) if 0 <= number < vocab_size]
    return []
