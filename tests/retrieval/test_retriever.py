"""From files on disk to passages: rankings, what is kept on disk, and what goes wrong with which message."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from promptopt.errors import ConfigError, DataError
from promptopt.lm.fingerprint import file_sha256
from promptopt.retrieval.bm25 import Bm25Index, terms
from promptopt.retrieval.index import FusedIndex, Hit, Index
from promptopt.retrieval.retriever import Retriever
from promptopt.retrieval.vectors import Embedding, VectorIndex, gguf_embedding
from tests.data_folder import data_file, read_jsonl_file
from tests.fixtures_gguf import write_tiny_gguf

PAGES = [
    {"doc_id": "desk", "title": "Desks", "text": "A lever tilts the keyboard. Another one lowers the desk."},
    {"doc_id": "badge", "title": "Badges", "text": "A badge opens the door. Lost badges are reported at once."},
    {"doc_id": "雨", "title": "天気", "text": "今日は雨が降る。傘を持って出かける。"},
]


def write_pages(folder: Path, pages: list[dict[str, object]] = PAGES) -> str:  # type: ignore[assignment]
    path = folder / "pages.jsonl"
    path.write_text("".join(json.dumps(page, ensure_ascii=False) + "\n" for page in pages), encoding="utf-8")
    return str(path)


def letters(texts: list[str]) -> np.ndarray:  # type: ignore[type-arg]
    return np.array([[text.lower().count(letter) + 0.01 for letter in "abcdefghijklmnopqrstuvwxyz"] for text in texts])


def test_the_best_passage_comes_first_and_passages_without_a_shared_word_do_not_come(tmp_path: Path) -> None:
    retriever = Retriever(write_pages(tmp_path), size=30, overlap=0, cache_dir=None)
    found = retriever.retrieve("Who lowers the desk?", 5)
    assert (found[0].doc_id, found[0].text) == ("desk", "Another one lowers the desk.")
    assert {passage.doc_id for passage in found} == {"desk", "badge"}
    assert retriever.retrieve("zebra", 5) == []


def test_the_title_helps_to_find_a_passage(tmp_path: Path) -> None:
    assert Retriever(write_pages(tmp_path), cache_dir=None).retrieve("desks", 1)[0].doc_id == "desk"


@pytest.mark.parametrize(
    ("segmentation", "expected"),
    [("words", "傘を持って出かける ab12"), ("ja_bigrams", "傘を を持 持っ って て出 出か かけ ける ab b1 12")],
)
def test_terms(segmentation: str, expected: str) -> None:
    assert terms("傘を持って出かける。ＡＢ12", segmentation) == expected.split()  # type: ignore[arg-type]


@pytest.mark.parametrize("segmentation", ["ja_words", "ja_bigrams"])
def test_japanese_is_found_only_with_segmentation(segmentation: str, tmp_path: Path) -> None:
    path = write_pages(tmp_path)
    assert Retriever(path, cache_dir=None).retrieve("雨が降る日", 1) == []
    assert Retriever(path, segmentation=segmentation, cache_dir=None).retrieve("雨が降る日", 1)[0].doc_id == "雨"  # type: ignore[arg-type]


def test_an_index_is_kept_without_pickle_and_used_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Retriever(write_pages(tmp_path), cache_dir=tmp_path / "kept")
    expected = first.retrieve("desk", 3)
    (kept,) = (tmp_path / "kept").iterdir()
    assert kept.name == f"{first.fingerprint}.bm25"
    assert {path.suffix for path in kept.iterdir()} == {".npy", ".json"}
    monkeypatch.setattr(Bm25Index, "__init__", None)  # making another one would fail
    assert Retriever(write_pages(tmp_path), cache_dir=tmp_path / "kept").retrieve("desk", 3) == expected


@pytest.mark.parametrize("harm", ["cut", "missing", "garbage"])
def test_a_damaged_index_is_made_again(harm: str, tmp_path: Path) -> None:
    expected = Retriever(write_pages(tmp_path), cache_dir=tmp_path / "kept").retrieve("desk", 3)
    (folder,) = (tmp_path / "kept").iterdir()
    for path in folder.iterdir():
        if harm == "cut":
            path.write_bytes(path.read_bytes()[:7])
        elif harm == "garbage":
            path.write_bytes(b"[1, 2")
        else:
            path.unlink()
    assert Retriever(write_pages(tmp_path), cache_dir=tmp_path / "kept").retrieve("desk", 3) == expected
    assert len(list((tmp_path / "kept").iterdir())) == 1


def test_another_text_or_setting_is_another_index(tmp_path: Path) -> None:
    path = write_pages(tmp_path)
    kept = {
        Retriever(path, cache_dir=None).fingerprint,
        Retriever(path, size=30, overlap=0, cache_dir=None).fingerprint,
    }
    kept.add(Retriever(path, segmentation="ja_bigrams", cache_dir=None).fingerprint)
    write_pages(tmp_path, [*PAGES[:2], {"doc_id": "new", "text": "More."}])
    kept.add(Retriever(path, cache_dir=None).fingerprint)
    assert len(kept) == 4


def test_another_process_finds_the_same(tmp_path: Path) -> None:
    path = write_pages(tmp_path)
    script = (
        "import sys; from promptopt.retrieval.retriever import Retriever\n"
        f"print(Retriever({path!r}, size=30, overlap=0, cache_dir=None).retrieve('the badge and the desk', 5))"
    )
    answers = [
        subprocess.run(
            [sys.executable, "-c", script], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, text=True,
            check=True, timeout=60,
        ).stdout
        for seed in ("1", "2")
    ]  # fmt: skip
    assert answers[0] == answers[1] == f"{Retriever(path, size=30, overlap=0).retrieve('the badge and the desk', 5)}\n"


def test_equal_texts_come_in_their_order() -> None:
    assert [hit.number for hit in Bm25Index(["desk", "door", "desk", "desk"]).search("desk", 2)] == [0, 2]


def test_texts_without_any_term_are_no_error() -> None:
    assert Bm25Index(["...", "!"]).search("desk", 3) == []
    assert [hit.number for hit in Bm25Index(["...", "desk"]).search("?! desk", 3)] == [1]


def test_reciprocal_rank_fusion_is_the_papers() -> None:
    class Fixed(Index):
        def __init__(self, numbers: list[int]) -> None:
            self.numbers = numbers

        def search(self, query: str, k: int) -> list[Hit]:
            return [Hit(number, 1.0) for number in self.numbers[:k]]

    found = FusedIndex([Fixed([3, 1]), Fixed([1, 2])]).search("", 3)
    assert [hit.number for hit in found] == [1, 3, 2]
    assert [hit.score for hit in found] == pytest.approx([1 / 62 + 1 / 61, 1 / 61, 1 / 62])


def test_vectors_are_kept_and_the_hybrid_finds_by_both(tmp_path: Path) -> None:
    calls: list[int] = []

    def counted(texts: list[str]) -> np.ndarray:  # type: ignore[type-arg]
        calls.append(len(texts))
        return letters(texts)

    embedding = Embedding("letters", counted)
    for _ in range(2):
        retriever = Retriever(write_pages(tmp_path), ranking="hybrid", embedding=embedding, cache_dir=tmp_path / "kept")
        assert retriever.retrieve("desk", 1)[0].doc_id == "desk"
    assert calls == [3, 1, 1]
    assert {path.suffix for path in (tmp_path / "kept").iterdir()} == {".npy", ".bm25"}


def test_a_gguf_embeds_and_its_hash_is_its_name(tmp_path: Path) -> None:
    path = write_tiny_gguf(tmp_path / "m.gguf", template=None)
    embedding = gguf_embedding(path, n_threads=1)
    retriever = Retriever(write_pages(tmp_path), ranking="embedding", embedding=embedding, cache_dir=None)
    best = retriever.retrieve(f"Desks\n{PAGES[0]['text']}", 3)
    assert (best[0].doc_id, best[0].score) == ("desk", pytest.approx(1.0, abs=1e-4))
    assert len(best) == 3
    assert file_sha256(path) in embedding.name
    embedding.embed.close()  # type: ignore[attr-defined]


def test_an_embedding_that_gives_something_else_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'flat' made an array of shape \(2,\) of 2 texts"):
        VectorIndex(["a", "b"], Embedding("flat", lambda texts: [1.0] * len(texts)))
    index = VectorIndex(["a"], Embedding("grows", lambda texts: np.ones((len(texts), 1 + texts[0].count("b")))))
    with pytest.raises(ConfigError, match="give another model another name"):
        index.search("b", 1)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"doc_id": "a"}', r"line 1: 'text' is None"),
        ("[1]", "line 1: a JSON list"),
        ("", "holds no document"),
        ('{"doc_id": "a", "text": "x"}\n{"doc_id": "a", "text": "y"}', "two documents with the doc_id 'a'"),
    ],
)
def test_a_bad_corpus_says_what_is_wrong(line: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "pages.jsonl").write_text(line, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        Retriever(str(tmp_path / "pages.jsonl"), cache_dir=None).retrieve("x", 1)


def test_bad_settings_and_missing_documents_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="`hybrid` need one"):
        Retriever("pages.jsonl", ranking="hybrid")
    with pytest.raises(ConfigError, match="k is 0"):
        Retriever(write_pages(tmp_path), cache_dir=None).retrieve("desk", 0)
    with pytest.raises(DataError, match="The data can be had from: the web"):
        Retriever("no/such.jsonl", origin="the web").retrieve("desk", 1)
    (tmp_path / "empty.jsonl").write_text('{"doc_id": "a", "text": " "}\n', encoding="utf-8")
    with pytest.raises(ConfigError, match="hold no text"):
        Retriever(str(tmp_path / "empty.jsonl"), cache_dir=None).retrieve("desk", 1)


def test_a_folder_of_documents_is_a_corpus(tmp_path: Path) -> None:
    (tmp_path / "desk.md").write_text("# Desks\n\nA lever lowers the desk.", encoding="utf-8")
    (tmp_path / "badge.txt").write_text("A badge opens the door.", encoding="utf-8")
    assert Retriever(str(tmp_path), cache_dir=None).retrieve("desk", 1)[0].doc_id == "desk.md"


def test_the_page_of_82_of_83_handbook_questions_is_among_five_passages() -> None:
    data_file("hr_18f_handbook/docs.jsonl")
    retriever = Retriever(str(data_file("hr_18f_handbook/docs.jsonl")), size=500, overlap=100, cache_dir=None)
    rows = list(read_jsonl_file("hr_18f_handbook/faq.jsonl"))
    found = sum(row["doc_id"] in {hit.doc_id for hit in retriever.retrieve(row["question"], 5)} for row in rows)
    assert (found, len(rows)) == (82, 83)
