"""From a language model's reply to instructions: what is taken off, and what makes a text no instruction at all.

Knows neither prompts nor models. Every rule is about text, so that a model that cannot write instructions leaves fewer
proposals, and never bad ones: empty, cut off, going round in circles, or giving an example's answer away.
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Sequence

from pydantic import JsonValue

LONGEST = 2000
"""Characters. Instructions are paid for in every prompt."""

SHORT_OVERLAP = 12
"""A whole answer of fewer characters may be named: labels, yes and no, a unit."""

LONG_OVERLAP = 32
"""Of a longer answer, a stretch of fewer characters may coincide."""

_LEAST_WORDS = 3
_LEAST_LETTERS = 4
_UNSPACED = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff]")
"""Letters of scripts that write without blanks, or with few: there, a word can be a sentence."""

_GRAM = 8
_LEAST_DIFFERENT_GRAMS = 0.5

_FENCED = re.compile(r"```[^\n`]*\n(.*?)\n?```", re.DOTALL)
_LABEL = re.compile(
    r"^[\s#*_>-]*(?:the )?(?:(?:new|better|improved|revised|proposed|updated|final) )?"
    r"(?:instructions?|prompt|指示文?)[*_ \t]*(?:[:\uff1a][*_ \t]*|$)",
    re.IGNORECASE | re.MULTILINE,
)
_PREAMBLE = re.compile(
    r"\A(?:sure|certainly|of course|okay|ok|here is|here's|here are|below is)\b[^\n]*:[ \t]*\n+", re.IGNORECASE
)
_THOUGHTS = re.compile(r"\A.*?</think(?:ing)?>", re.DOTALL)
_QUOTES = [pair.split() for pair in ("``` ```", '" "', "' '", "“ ”", "‘ ’", "« »", "「 」", "『 』", "` `", "** **")]
_REFUSAL = re.compile(
    r"\A(?:i['’]?m sorry|i am sorry|sorry,|i can(?:no|['’])t\b|i am unable|i['’]m unable|as an ai\b)", re.IGNORECASE
)
_MARKERS = re.compile(r"\[\[ ## .* ## \]\]|<\|[^|\n]*\|>")


def instruction_in(reply: str, *, marked: bool = False) -> str:
    """Return the instruction that `reply` holds, without what stands around it; empty where there is none.

    Taken off: thoughts, code fences, a leading "Instruction:", a sentence that announces it, quotes around the whole.

    Args:
        marked: the reply was to think first. Then several paragraphs without a code fence or a label are thoughts, of
            which nobody can say where the instruction begins.
    """
    text = _THOUGHTS.sub("", reply.replace("\r\n", "\n")).strip()
    if text.lower().startswith("<think"):
        return ""
    fenced = _FENCED.findall(text)
    labels = list(_LABEL.finditer(text))
    if fenced:
        text = fenced[-1].strip()
    elif marked and labels:
        text = text[labels[-1].end() :].strip()
    elif marked and "\n\n" in _PREAMBLE.sub("", text):
        return ""
    while (barer := _barer(text)) != text:
        text = barer
    return text


def refusal_reason(text: str, known: Sequence[str], answers: "Answers") -> str:
    """Return why `text` is no instruction for a pool, in a few words; empty if it is one.

    Args:
        known: instructions there are already, the program's own first; they differ by more than case and blanks.
        answers: what examples answer.
    """
    if _next_to_nothing(text):
        return "holds next to no words"
    if "\ufffd" in text or any(unicodedata.category(letter) == "Cc" and not letter.isspace() for letter in text):
        return "holds characters that are none"
    if len(text) > LONGEST:
        return f"has {len(text)} characters, more than {LONGEST}"
    if _REFUSAL.search(text):
        return "the model refused"
    if _MARKERS.search(text):
        return "holds markers of a prompt format, which is the layout's part"
    if _goes_round(text):
        return "repeats itself"
    if alike(text) in {alike(one) for one in known}:
        return "is known already"
    leaked = answers.leaked_by(text, known[:1])
    return f"gives away the answer of an example: {leaked!r}" if leaked else ""


def alike(text: str) -> str:
    """Return `text` without what makes no difference: case, blanks, width of characters, a last full stop."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split()).rstrip(".。 ")


class Answers:
    """The answers of examples, to see whether a text gives one away.

    What several examples have in common (a label, a stock phrase, the beginning of every answer) is the task's
    vocabulary, and may be named.

    Args:
        of_examples: whose answer (rows that belong together have one owner), and the answer.
    """

    def __init__(self, of_examples: Sequence[tuple[str, JsonValue]]) -> None:
        self._texts = [(owner, alike(text)) for owner, value in of_examples for text in _texts_in(value)]

    def leaked_by(self, text: str, allowed: Sequence[str] = ()) -> str:
        """Return the words of `text` that only one example's answer has; empty if there are none.

        Args:
            allowed: texts whose words anyone may repeat.
        """
        said = alike(text)
        free = "\n".join(alike(one) for one in allowed)
        stretches = {said[start : start + LONG_OVERLAP] for start in range(len(said) - LONG_OVERLAP + 1)}
        owners: dict[str, set[str]] = defaultdict(set)
        for owner, answer in self._texts:
            if len(answer) >= SHORT_OVERLAP and answer in said:
                owners[answer].add(owner)
            for start in range(len(answer) - LONG_OVERLAP + 1):
                if (stretch := answer[start : start + LONG_OVERLAP]) in stretches:
                    owners[stretch].add(owner)
        return next((words for words, of in sorted(owners.items()) if len(of) == 1 and words not in free), "")


def _barer(text: str) -> str:
    """Return `text` without its outermost wrapping."""
    text = _PREAMBLE.sub("", text.strip()).strip()
    label = _LABEL.match(text)
    if label and text[label.end() :].strip():
        text = text[label.end() :].strip()
    for left, right in _QUOTES:
        inner = text[len(left) : len(text) - len(right)]
        whole = len(text) > len(left) + len(right) and text.startswith(left) and text.endswith(right)
        # `"yes" or "no"` is quoted at both ends, not as a whole.
        if whole and left not in inner and right not in inner:
            return inner.strip()
    return text


def _next_to_nothing(text: str) -> bool:
    if sum(letter.isalpha() for letter in text) < _LEAST_LETTERS:
        return True
    return not _UNSPACED.search(text) and sum(any(map(str.isalpha, word)) for word in text.split()) < _LEAST_WORDS


def _goes_round(text: str) -> bool:
    grams = [text[start : start + _GRAM] for start in range(len(text) - _GRAM + 1)]
    return len(grams) > 5 * _GRAM and len(set(grams)) < _LEAST_DIFFERENT_GRAMS * len(grams)


def _texts_in(value: JsonValue) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for item in value.values() for text in _texts_in(item)]
    return [text for item in value for text in _texts_in(item)] if isinstance(value, list) else []
