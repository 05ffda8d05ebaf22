"""Text -> words, for metrics that compare words: English by rule, Japanese by MeCab. Scores nothing."""

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from promptopt.extras import require
from promptopt.metrics.answers import Language

_WORD = re.compile(r"\w+")


def words(text: str, language: Language = "en") -> Sequence[str]:
    """Return the words of `text` in lower case, NFKC, without punctuation.

    English: runs of letters, digits and `_`. Japanese: MeCab with the IPA dictionary, as sacrebleu's `ja-mecab`.

    Raises:
        MissingExtraError: Japanese needs the extra `metrics`.
    """
    plain = unicodedata.normalize("NFKC", text).lower()
    if language == "en":
        return _WORD.findall(plain)
    return [word for word in _mecab()(" ".join(plain.split())).split() if _WORD.search(word)]


@lru_cache(maxsize=1)
def _mecab() -> Any:
    require("MeCab")
    require("ipadic")
    return require("sacrebleu").BLEU(tokenize="ja-mecab").tokenizer
