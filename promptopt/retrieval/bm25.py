"""BM25 over texts, by bm25s (Lù 2024, arXiv 2407.03618); kept on disk as NumPy arrays and JSON, never as pickle."""

import os
import shutil
import tempfile
import unicodedata
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from promptopt.extras import require
from promptopt.metrics.tokens import words
from promptopt.retrieval.index import Hit, Index

Segmentation = Literal["words", "ja_words", "ja_bigrams"]
"""How texts become terms: runs of letters and digits; Japanese words by MeCab (extra `metrics`); pairs of neighbouring
characters, which need no dictionary."""


def terms(text: str, segmentation: Segmentation) -> list[str]:
    """Return the terms of `text`, lower case, NFKC.

    Raises:
        MissingExtraError: `ja_words` needs the extra `metrics`.
    """
    if segmentation == "ja_bigrams":
        runs = words(unicodedata.normalize("NFKC", text), "en")
        return [run[at : at + 2] for run in runs for at in range(max(1, len(run) - 1))]
    return list(words(text, "ja" if segmentation == "ja_words" else "en"))


class Bm25Index(Index):
    """BM25 as Lucene computes it (k1 1.5, b 0.75), without stemming and stop words; no shared term, no hit.

    Args:
        texts: at least one; they are not kept.
        segmentation: of texts and queries alike.

    Raises:
        MissingExtraError: the extra `retrieval` is not installed.
    """

    def __init__(self, texts: Sequence[str], segmentation: Segmentation = "words") -> None:
        self._terms = partial(terms, segmentation=segmentation)
        self._bm25 = require("bm25s").BM25(method="lucene")
        tokens = [self._terms(text) for text in texts]
        # bm25s cannot index nothing: one term that no query can have stands for texts without any.
        self._bm25.index(tokens if any(tokens) else [["\0"]] * len(tokens), show_progress=False)

    @classmethod
    def kept(cls, texts: Sequence[str], segmentation: Segmentation, folder: Path) -> "Bm25Index":
        """Return the index that lies in `folder`, or make it and keep it there, if that can be done.

        Args:
            folder: one of its own for these texts, this segmentation and this version of bm25s.
        """
        index = cls.__new__(cls)
        index._terms = partial(terms, segmentation=segmentation)
        try:
            index._bm25 = require("bm25s").BM25.load(folder, load_corpus=False, allow_pickle=False)
            if int(index._bm25.scores["num_docs"]) == len(texts):
                return index
        except (OSError, ValueError, KeyError, TypeError, EOFError):
            pass  # not there, or damaged: made again
        made = cls(texts, segmentation)
        made._keep(folder)
        return made

    def search(self, query: str, k: int) -> list[Hit]:
        """Return up to `k` texts with a term of the query, best first; of equal ones, the first."""
        known = [term for term in self._terms(query) if term in self._bm25.vocab_dict]
        if not known:
            return []
        scores: Any = self._bm25.get_scores(known)
        best = np.lexsort((np.arange(len(scores)), -scores))[:k]
        return [Hit(int(number), float(scores[number])) for number in best if scores[number] > 0]

    def _keep(self, folder: Path) -> None:
        """Write the index as a whole or not at all: another process may be reading, or writing the same."""
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            made = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
            try:
                self._bm25.save(made, show_progress=False)
                if folder.exists():
                    shutil.rmtree(folder)
                os.replace(made, folder)
            finally:
                shutil.rmtree(made, ignore_errors=True)
        except OSError:
            return
