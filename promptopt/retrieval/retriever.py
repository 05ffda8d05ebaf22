"""Retriever: the passages of a corpus that belong to a question. Read, cut and indexed at the first question."""

import hashlib
import json
import threading
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from promptopt.errors import ConfigError
from promptopt.retrieval.bm25 import Bm25Index, Segmentation
from promptopt.retrieval.chunking import Chunk, chunks_of
from promptopt.retrieval.corpus import read_documents
from promptopt.retrieval.index import FusedIndex, Index
from promptopt.retrieval.vectors import Embedding, VectorIndex
from promptopt.user_cache import user_cache_dir

Ranking = Literal["bm25", "embedding", "hybrid"]


@dataclass(frozen=True)
class Passage:
    """One chunk that was found; a higher score is better, within one question."""

    doc_id: str
    title: str
    text: str
    score: float


@dataclass(frozen=True)
class _Loaded:
    chunks: tuple[Chunk, ...]
    fingerprint: str
    index: Index


class Retriever:
    """Passages of the documents in a file or folder. Thread-safe; copies share what it has read.

    The index lies in the user's cache, under a key of the chunks' text and of all settings: another text is another
    index, the same text is indexed once. Changes of the files while a program runs are not seen.

    Args:
        path: see `read_documents`.
        size, overlap: of chunks, in characters; see `chunks_of`.
        ranking: `bm25`; `embedding` and `hybrid` (both rankings fused) need `embedding`.
        segmentation: how BM25 cuts texts into terms.
        origin: where the documents can be had; said when they are missing.
        cache_dir: where indexes are kept; None = nowhere, "user" = in promptopt's folder of the user's cache.

    Raises:
        ConfigError: the ranking and `embedding` do not go together.
    """

    def __init__(
        self,
        path: str,
        *,
        size: int = 800,
        overlap: int = 150,
        ranking: Ranking = "bm25",
        segmentation: Segmentation = "words",
        embedding: Embedding | None = None,
        origin: str = "",
        cache_dir: Path | Literal["user"] | None = "user",
    ) -> None:
        if (ranking == "bm25") != (embedding is None):
            raise ConfigError(
                f"The ranking is {ranking!r} and embedding is {embedding and embedding.name!r}; `embedding` and "
                "`hybrid` need one, `bm25` takes none."
            )
        self._path, self._origin = path, origin
        self._size, self._overlap = size, overlap
        self._ranking, self._segmentation, self._embedding = ranking, segmentation, embedding
        self._folder = user_cache_dir() / "retrieval" if cache_dir == "user" else cache_dir
        self._lock = threading.Lock()
        self._state: _Loaded | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> "Retriever":
        # The evaluator copies programs, one copy for each row that runs at the same time.
        return self

    @property
    def fingerprint(self) -> str:
        """Hash of the chunks' text and of all settings: an equal one finds equal passages."""
        return self._loaded().fingerprint

    @property
    def chunks(self) -> tuple[Chunk, ...]:
        """All chunks, in the order of the documents."""
        return self._loaded().chunks

    def retrieve(self, question: str, k: int) -> list[Passage]:
        """Return up to `k` passages, best first; fewer where fewer share a word with the question (BM25).

        Raises:
            DataError: the documents are missing or cannot be read.
            ConfigError: k is below 1.
            MissingExtraError: the extra `retrieval` is not installed.
        """
        if k < 1:
            raise ConfigError(f"k is {k}; allowed are positive numbers of passages.")
        state = self._loaded()
        found = [(state.chunks[hit.number], hit.score) for hit in state.index.search(question, k)]
        return [Passage(chunk.doc_id, chunk.title, chunk.text, score) for chunk, score in found]

    def _loaded(self) -> _Loaded:
        with self._lock:
            if self._state is None:
                chunks = tuple(chunks_of(read_documents(self._path, self._origin), self._size, self._overlap))
                if not chunks:
                    raise ConfigError(f"The documents in {self._path!r} hold no text, so nothing can be found in them.")
                key = self._key(chunks)
                self._state = _Loaded(chunks, key, self._index(chunks, key))
            return self._state

    def _key(self, chunks: tuple[Chunk, ...]) -> str:
        embedding = self._embedding
        settings = {
            "ranking": self._ranking,
            "segmentation": self._segmentation,
            "embedding": embedding and [embedding.name, embedding.query_prefix, embedding.text_prefix],
            "bm25s": None if self._ranking == "embedding" else version("bm25s"),
        }
        content = json.dumps([settings, [asdict(chunk) for chunk in chunks]], ensure_ascii=False, sort_keys=True)
        return hashlib.sha256(content.encode("utf-8", errors="surrogatepass")).hexdigest()[:32]

    def _index(self, chunks: tuple[Chunk, ...], key: str) -> Index:
        # A chunk from the middle of a page rarely says what the page is about; its title does.
        texts = [f"{chunk.title}\n{chunk.text}" for chunk in chunks]
        folder = self._folder
        indexes: list[Index] = []
        if self._ranking != "embedding":
            segmentation = self._segmentation
            kept = folder and folder / f"{key}.bm25"
            indexes.append(Bm25Index.kept(texts, segmentation, kept) if kept else Bm25Index(texts, segmentation))
        if self._embedding is not None:
            indexes.append(VectorIndex(texts, self._embedding, folder and folder / f"{key}.npy"))
        return indexes[0] if len(indexes) == 1 else FusedIndex(indexes)
