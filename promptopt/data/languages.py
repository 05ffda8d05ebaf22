"""Which language a text is in, by its script, and for Latin script by the commonest English words.

Rules instead of a statistical detector: they cannot be unsure about Japanese and need no model. What they cannot tell
(German from French, Chinese from Japanese without kana) they do not claim.
"""

import re
from collections import Counter
from collections.abc import Iterable
from typing import Literal

Language = Literal["ja", "en", "zh", "ko", "other", "none"]

_KANA = re.compile(r"[\u3041-\u309f\u30a1-\u30fa\u31f0-\u31ff\uff66-\uff9f]")
_HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
_HANGUL = re.compile(r"[\u1100-\u11ff\u3130-\u318f\uac00-\ud7af]")
_LETTER = re.compile(r"[^\W\d_]")
_ASCII_WORD = re.compile(r"[A-Za-z]+")
_LATIN_BEYOND_ASCII = re.compile(r"[\u00aa-\u024f\u1e00-\u1eff]")
_ENGLISH = frozenset(
    "the of and to in a is that for it as was with be by on not he his but at are this have from or had an they which "
    "one you were her all she there would their we him been has when who will more no if out so said what up its about "
    "into than them can only other how my your i me do does did any where why am want need please".split()
)
_FEWEST_KANA = 0.05
_LONG_ENOUGH = 12
_FEWEST_ENGLISH = 0.1
_SURELY_ENGLISH = 2
_SAMPLE = 4000


def language_of(text: str) -> Language:
    """Return the language of `text`, judged by its first 4,000 characters.

    "ja": a twentieth of its East Asian characters are kana. "zh": Chinese characters, no kana (short Japanese titles
    look the same). "en": Latin letters, and in 12 words or more at least a tenth common English ones; fewer words count
    as English unless they hold an accent and hardly a common English word. "other": anything else with letters;
    "none": no letters.
    """
    sample = text[:_SAMPLE]
    letters = len(_LETTER.findall(sample))
    if not letters:
        return "none"
    kana, han, hangul = (len(script.findall(sample)) for script in (_KANA, _HAN, _HANGUL))
    words = _ASCII_WORD.findall(sample.lower())
    # One Chinese character says about as much as a word of two letters and more.
    if kana + han + hangul > len(words):
        if kana >= _FEWEST_KANA * (kana + han + hangul):
            return "ja"
        return "zh" if han >= hangul else "ko"
    accents = len(_LATIN_BEYOND_ASCII.findall(sample))
    if sum(map(len, words)) + accents < letters / 2:
        return "other"
    english = sum(word in _ENGLISH for word in words)
    if len(words) >= _LONG_ENOUGH:
        return "en" if english >= _FEWEST_ENGLISH * len(words) else "other"
    return "en" if not accents or english >= _SURELY_ENGLISH else "other"


def count_languages(texts: Iterable[str]) -> dict[Language, int]:
    """Return language -> texts in it, the most frequent first."""
    return dict(Counter(language_of(text) for text in texts).most_common())
