"""Recognises a tokenizer's pre-tokenizer and names llama.cpp's equal of it.

llama.cpp has its pre-tokenizers compiled in and picks one by name. Its own converter recognises tokenizers by a hash of
what they make of one test string, and refuses all it has not seen. Here the structure itself in `tokenizer.json` is
compared first, and llama.cpp's converter asked about what is unknown; that both sides cut alike is then proved by
parity on real prompts.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from promptopt.errors import ExportError

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2_REGEX = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + _REST
LLAMA3_REGEX = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}" + _REST


@dataclass(frozen=True, slots=True)
class PreTokenizer:
    """One structure that is known on both sides.

    Attributes:
        title: what messages call it.
        steps: its canonical form, see `_canonical`.
        name: llama.cpp's name where a word is always built by merges.
        name_ignoring_merges: llama.cpp's name where a word that is a token is taken as it is (`ignore_merges`).
    """

    title: str
    steps: tuple[str, ...]
    name: str | None
    name_ignoring_merges: str | None = None


_BYTES, _GPT2 = "bytes", "bytes with the GPT-2 regex"
KNOWN = (
    PreTokenizer("Qwen2", (f"split {QWEN2_REGEX}", _BYTES), "qwen2"),
    # `smaug-bpe` is llama.cpp's Llama 3 regex without `ignore_merges`.
    PreTokenizer("Llama 3", (f"split {LLAMA3_REGEX}", _BYTES), "smaug-bpe", "llama-bpe"),
    PreTokenizer("GPT-2", (_GPT2,), "gpt-2"),
    PreTokenizer("SmolLM", ("single digits", _GPT2), "smollm"),
)


def recognise(tokenizer: Mapping[str, Any]) -> str | None:
    """Return llama.cpp's name of the pre-tokenizer in a parsed `tokenizer.json`; None for an unknown structure."""
    steps = tuple(_canonical(step) for step in _flat(tokenizer.get("pre_tokenizer")))
    ignores_merges = bool(tokenizer["model"].get("ignore_merges", False))
    for known in KNOWN:
        name = known.name_ignoring_merges if ignores_merges else known.name
        if known.steps == steps and name:
            return name
    return None


def unknown_pre_tokenizer(tokenizer: Mapping[str, Any], *, source: str) -> ExportError:
    """Return the error that says which structure is unknown, and which are known."""
    listed = "; ".join(f"{known.title}: {' + '.join(known.steps)}" for known in KNOWN)
    return ExportError(
        f"The pre-tokenizer of {source} is {tokenizer.get('pre_tokenizer')!r} (ignore_merges "
        f"{bool(tokenizer['model'].get('ignore_merges', False))}), for which no equal in llama.cpp is known, neither "
        f"here nor to llama.cpp's converter. Known here are: {listed} (only Llama 3 also with ignore_merges). If you "
        "know llama.cpp's name of it, give it: convert_to_gguf(..., pre_tokenizer=NAME)."
    )


def _flat(step: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    if step is None:
        return []
    if step["type"] == "Sequence":
        return [inner for part in step["pretokenizers"] for inner in _flat(part)]
    return [step]


def _canonical(step: Mapping[str, Any]) -> str:
    """Say a step in words that are equal for equal behaviour; `trim_offsets` changes offsets only, not tokens."""
    pattern = step.get("pattern")
    match step["type"]:
        case "ByteLevel" if not step.get("add_prefix_space", True):
            return _GPT2 if step.get("use_regex", True) else _BYTES
        case "Digits" if step.get("individual_digits"):
            return "single digits"
        case "Split" if isinstance(pattern, dict) and step.get("behavior") == "Isolated" and not step.get("invert"):
            return f"split {pattern.get('Regex')}"
    return repr(dict(step))
