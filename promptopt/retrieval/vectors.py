"""Texts ranked by the cosine of embeddings; the vectors are kept on disk as one NumPy array. Searches exactly."""

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from promptopt.errors import ConfigError
from promptopt.lm.fingerprint import file_sha256
from promptopt.retrieval.index import Hit, Index


@dataclass(frozen=True)
class Embedding:
    """A model that turns texts into vectors.

    Attributes:
        name: says which model it is: vectors kept under one name are used for no other.
        embed: texts -> array (texts, width); e.g. `SentenceTransformer(...).encode`, or a `dspy.Embedder`.
        query_prefix, text_prefix: what the model wants before queries and texts, e.g. "query: " and "passage: ".
    """

    name: str
    embed: Callable[[list[str]], Any]
    query_prefix: str = ""
    text_prefix: str = ""


def gguf_embedding(path: Path | str, *, query_prefix: str = "", text_prefix: str = "", **options: Any) -> Embedding:
    """Return an embedding model in a GGUF file, run by promptopt's engine.

    Args:
        options: of `GgufEmbedder`.

    Raises:
        ModelError: the file cannot be used.
        MissingExtraError: the extra `llama-cpp` is not installed.
    """
    from promptopt.lm.llama_cpp.embedding import GgufEmbedder

    embedder = GgufEmbedder(path, **options)
    return Embedding(f"gguf {file_sha256(Path(path))}", embedder, query_prefix, text_prefix)


class VectorIndex(Index):
    """Every text compared with the query: no approximation, (texts x width) products per query.

    Args:
        texts: at least one; embedded in one call.
        kept: .npy file that holds the vectors of these texts by this embedding, or will.

    Raises:
        ConfigError: the embedding gives no (texts, width) array of finite numbers.
    """

    def __init__(self, texts: Sequence[str], embedding: Embedding, kept: Path | None = None) -> None:
        self._embedding = embedding
        found = _read(kept, len(texts)) if kept else None
        if found is None:
            found = self._embed([embedding.text_prefix + text for text in texts])
            if kept:
                _write(kept, found)
        self._vectors = found

    def search(self, query: str, k: int) -> list[Hit]:
        """Return `k` texts by the cosine with the query, best first; of equal ones, the first."""
        vector = self._embed([self._embedding.query_prefix + query])[0]
        if len(vector) != self._vectors.shape[1]:
            raise ConfigError(
                f"The embedding {self._embedding.name!r} gives {len(vector)} numbers for a query and "
                f"{self._vectors.shape[1]} for the texts; give another model another name."
            )
        scores = self._vectors @ vector
        best = np.lexsort((np.arange(len(scores)), -scores))[:k]
        return [Hit(int(number), float(scores[number])) for number in best]

    def _embed(self, texts: list[str]) -> NDArray[np.float32]:
        vectors = np.asarray(self._embedding.embed(texts), dtype=np.float32)
        if vectors.ndim != 2 or len(vectors) != len(texts) or not np.isfinite(vectors).all():
            raise ConfigError(
                f"The embedding {self._embedding.name!r} made an array of shape {vectors.shape} of {len(texts)} texts; "
                "it must be (texts, width), all numbers finite."
            )
        normal: NDArray[np.float32] = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        return normal


def _read(kept: Path, count: int) -> NDArray[np.float32] | None:
    try:
        found = np.load(kept, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return found if found.ndim == 2 and len(found) == count and found.dtype == np.float32 else None


def _write(kept: Path, vectors: NDArray[np.float32]) -> None:
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=kept.parent, suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as file:
                np.save(file, vectors, allow_pickle=False)
            os.replace(name, kept)
        except OSError:
            Path(name).unlink(missing_ok=True)
    except OSError:
        return
