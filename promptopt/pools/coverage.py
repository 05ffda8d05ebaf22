"""Which training rows cover the inputs, and which stand in their middle. Knows texts and numbers, no demos.

Inputs are compared by their character trigrams, because that needs no model, no vocabulary and no word boundaries: it
reads Japanese as it reads English. Each field counts the same, so that a page of context does not drown the question.
"""

import json
import random
import unicodedata
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from promptopt.records import DataRow

BUCKETS = 512
"""Trigrams are hashed into so many numbers per field. Collisions blur a little; a field of a row takes 4 KiB."""

LARGEST = 4096
"""Of more rows than this, a seeded sample is compared: a pool needs a handful."""

OUTLIERS = 0.1
"""Share of the rows, farthest from the middle, that covering leaves out: farthest points are often broken rows."""

Vectors = NDArray[np.float64]


def sampled(rows: Sequence[DataRow], seed: int) -> list[DataRow]:
    """Return `rows` in the order of their ids, or a sample of LARGEST of them: the order of a file decides nothing."""
    ordered = sorted(rows, key=lambda row: row.id)
    if len(ordered) <= LARGEST:
        return ordered
    return sorted(random.Random(f"{seed}:sample").sample(ordered, LARGEST), key=lambda row: row.id)


def input_vectors(rows: Sequence[DataRow], fields: Sequence[str]) -> Vectors:
    """Return one vector of length 1 (0 without any text) per row; the dot product of two is their likeness, 0 to 1."""
    parts = [_weighted(np.stack([_trigrams(row.fields.get(name)) for row in rows])) for name in fields]
    return _unit(np.concatenate(parts, axis=1)) if parts else np.zeros((len(rows), 1))


def central_first(vectors: Vectors) -> list[int]:
    """Return the positions of all rows, the one most like all others first."""
    return [int(index) for index in np.argsort(-_likeness_to_all(vectors), kind="stable")]


def farthest_first(vectors: Vectors, size: int) -> list[int]:
    """Return the positions of `size` rows that cover the others: the central one, then always the one least covered.

    The greedy 2-approximation of k-centers (Gonzalez 1985), without the OUTLIERS (as Charikar et al. 2001 allow).
    """
    order = central_first(vectors)
    kept = np.array(order[: max(size, int(np.ceil(len(order) * (1 - OUTLIERS))))], dtype=np.int64)
    if not len(kept):
        return []
    chosen = [int(kept[0])]
    covered = _likeness(vectors[kept], vectors[chosen[0]])
    while len(chosen) < min(size, len(kept)):
        # A chosen row is never the least covered again, even among rows that are all alike.
        covered[kept == chosen[-1]] = np.inf
        chosen.append(int(kept[int(np.argmin(covered))]))
        covered = np.maximum(covered, _likeness(vectors[kept], vectors[chosen[-1]]))
    return chosen


def as_text(value: JsonValue) -> str:
    """Return a field's value as one text; None is the empty one."""
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value, ensure_ascii=False)


def _trigrams(value: JsonValue) -> Vectors:
    text = " ".join(unicodedata.normalize("NFKC", as_text(value)).casefold().split())
    if not text:
        return np.zeros(BUCKETS)
    # Blanks at both ends: a text of one letter has a trigram, and the beginnings of words count.
    codes = np.frombuffer(f" {text} ".encode("utf-32-le", errors="surrogatepass"), dtype=np.uint32).astype(np.uint64)
    mixed = codes[:-2] * np.uint64(0x9E3779B1) + codes[1:-1] * np.uint64(0x85EBCA77) + codes[2:] * np.uint64(0xC2B2AE3D)
    buckets = ((mixed ^ (mixed >> np.uint64(15))) % np.uint64(BUCKETS)).astype(np.int64)
    return np.bincount(buckets, minlength=BUCKETS).astype(np.float64)


def _weighted(counts: Vectors) -> Vectors:
    """Return counts as tf-idf of length 1: what stands in every row says nothing about one."""
    in_rows = (counts > 0).sum(axis=0)
    return _unit(np.sqrt(counts) * (np.log((1 + len(counts)) / (1 + in_rows)) + 1))


def _unit(vectors: Vectors) -> Vectors:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled: Vectors = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)
    return scaled


def _likeness_to_all(vectors: Vectors) -> Vectors:
    return _likeness(vectors, vectors.mean(axis=0)) if len(vectors) else np.zeros(0)


def _likeness(vectors: Vectors, one: Vectors) -> Vectors:
    # Rounded, so that the last bits of a machine's linear algebra decide nothing between equals.
    rounded: Vectors = np.round(vectors @ one, 9)
    return rounded
