"""Rows that say nearly the same: shingles, MinHash to find candidates, exact Jaccard similarity to decide.

Broder 1997 (resemblance of documents by shingles); threshold and shingle sizes as in Lee et al. 2022, "Deduplicating
Training Data Makes Language Models Better". Candidates come from `datasketch`; what it proposes is compared exactly, so
chance decides only what is overlooked: under 1 % of the pairs at the threshold, fewer above it.
"""

import re
import unicodedata
import zlib
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Hashes: TypeAlias = npt.NDArray[np.uint64]

_PERMUTATIONS = 128
_MISSED = 0.01
_SEED = 1
_WORDS, _CHARACTERS = 3, 5
_BATCH = 4096
# Scripts without spaces between words: kana, Chinese characters, Thai, Lao, Burmese, Khmer.
_UNSPACED = r"\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_UNSPACED += r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
_TOKEN = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+")
_IS_UNSPACED = re.compile(rf"[{_UNSPACED}]")


class NearDuplicates:
    """Texts under keys, which can be asked for one that nearly equals another text.

    Args:
        threshold: Jaccard similarity of the shingles from which two texts are near-duplicates.
    """

    def __init__(self, threshold: float) -> None:
        # Half a second of SciPy stands behind this import.
        import datasketch

        self._threshold = threshold
        bands, rows = _bands(threshold)
        self._lsh: Any = datasketch.MinHashLSH(num_perm=bands * rows, params=(bands, rows))
        self._empty: Any = datasketch.MinHash(num_perm=bands * rows, seed=_SEED, hashfunc=int)
        self._shingles: dict[str, Hashes] = {}
        self._order: dict[str, int] = {}

    def add(self, key: str, text: str) -> None:
        """Remember `text` under `key`, which is new. A text without letters or digits resembles nothing."""
        hashes = shingles(text)
        if len(hashes):
            self._order[key] = len(self._order)
            self._shingles[key] = hashes
            self._lsh.insert(key, self._minhash(hashes), check_duplication=False)

    def find(self, text: str) -> tuple[str, float] | None:
        """Return the key that was added first with a text nearly equal to `text`, and their similarity; else None."""
        hashes = shingles(text)
        if not len(hashes):
            return None
        for key in sorted(self._lsh.query(self._minhash(hashes)), key=self._order.__getitem__):
            alike = similarity(hashes, self._shingles[key])
            if alike >= self._threshold:
                return key, alike
        return None

    def _minhash(self, hashes: Hashes) -> Any:
        made = self._empty.copy()
        for begin in range(0, len(hashes), _BATCH):  # at once, a book would take permutations x shingles x 8 bytes
            made.update_batch((hashes[begin : begin + _BATCH] >> np.uint64(32)).tolist())
        return made


def similarity(first: Hashes, second: Hashes) -> float:
    """Return the Jaccard similarity of two sets of shingles, neither empty."""
    both = len(np.intersect1d(first, second, assume_unique=True))
    return both / (len(first) + len(second) - both)


def shingles(text: str) -> Hashes:
    """Return the hashes of the shingles of `text`: sorted, each once; empty where it has neither letters nor digits.

    Case, width, punctuation and spaces make no difference. A shingle is 3 words; or 5 characters, where most letters
    are of a script that does not part words by spaces. A shorter text is one shingle.
    """
    tokens = _TOKEN.findall(unicodedata.normalize("NFKC", text).casefold())
    if sum(bool(_IS_UNSPACED.match(token)) for token in tokens) * 2 > len(tokens):
        # Words of other scripts inside such a text count by character too, or they would weigh too much.
        tokens, size = list("".join(tokens)), _CHARACTERS
    else:
        size = _WORDS
    if not tokens:
        return np.zeros(0, np.uint64)
    values = _token_hashes(tokens)
    size = min(size, len(tokens))
    mixed = np.zeros(len(values) - size + 1, np.uint64)
    for offset in range(size):
        mixed = _mix(mixed + values[offset : offset + len(mixed)])
    unique: Hashes = np.unique(mixed)
    return unique


def _token_hashes(tokens: list[str]) -> Hashes:
    """Return a hash of 32 bits per token, the same on every machine."""
    known = {token: zlib.crc32(token.encode("utf-8")) for token in set(tokens)}
    return np.fromiter((known[token] for token in tokens), np.uint64, len(tokens))


def _mix(values: Hashes) -> Hashes:
    """Return `values` stirred (SplitMix64): the next token added to them gives another sum for another order."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _bands(threshold: float) -> tuple[int, int]:
    """Return bands and rows per band: the longest bands that still overlook few enough pairs at the threshold.

    A pair of similarity s shares a band of r rows with probability s^r, and no band of b with (1 - s^r)^b.
    """
    fitting = [
        (b, r) for r in range(1, _PERMUTATIONS // 2 + 1) if (1 - threshold**r) ** (b := _PERMUTATIONS // r) < _MISSED
    ]
    return fitting[-1]
