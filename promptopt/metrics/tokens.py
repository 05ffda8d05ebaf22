"""Text -> words, for metrics that compare words: English by rule, Japanese by MeCab. Scores nothing."""

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from promptopt.extras import require
from promptopt.metrics.answers import Language

_WORD = re.compile(r"\w+")
_LONGEST = 10_000


def words(text: str, language: Language = "en") -> Sequence[str]:
    """Return the words of `text` in lower case, NFKC, without punctuation.

    English: runs of letters, digits and `_`. Japanese: MeCab with the IPA dictionary, as sacrebleu's `ja-mecab`.

    Raises:
        MissingExtraError: Japanese needs the extra `metrics`.
    """
    plain = unicodedata.normalize("NFKC", text).lower()
    if language == "en":
        return _WORD.findall(plain)
    return [word for word in cut_japanese(" ".join(plain.split())).split() if _WORD.search(word)]


def cut_japanese(line: str) -> str:
    """Return `line` with spaces between its words, as sacrebleu's tokenizer `ja-mecab`.

    MeCab refuses a sentence of 200,000 letters, and is slow long before; a longer text is cut into pieces first.
    """
    pieces = [line[start : start + _LONGEST] for start in range(0, len(line), _LONGEST)]
    return " ".join(_mecab()(piece) for piece in pieces)


@lru_cache(maxsize=1)
def _mecab() -> Any:
    require("MeCab")
    require("ipadic")
    return require("sacrebleu").BLEU(tokenize="ja-mecab").tokenizer
