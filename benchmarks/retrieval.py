"""How often retrieval finds what a question needs, on real documents in English and Japanese.

    python benchmarks/retrieval.py [--embedding MODEL.gguf] [--out FILE]

handbook: pages cut into chunks; the passage found must be of the gold page ("page") or overlap the gold answer itself
("answer"). xquad, jsquad: whole paragraphs, each question has one. hotpotqa: the paragraphs of all questions in one
pool; the share of a question's two gold paragraphs that is found. recall@k is a mean over questions. Needs
$PROMPTOPT_DATA. With --embedding, a GGUF embedding model and its fusion with BM25 on the paragraphs of xquad.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from engine_bench.report import cpu_model, table

from promptopt.data.sources import find_data_file
from promptopt.retrieval.bm25 import Bm25Index, Segmentation
from promptopt.retrieval.index import FusedIndex, Index
from promptopt.retrieval.retriever import Retriever
from promptopt.retrieval.vectors import VectorIndex, gguf_embedding

KS = (1, 2, 3, 5, 10)


@dataclass(frozen=True)
class Line:
    """One line of the table; `recall` is in the order of KS."""

    data: str
    how: str
    texts: int
    questions: int
    recall: list[float]
    ms_per_question: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--embedding", type=Path, metavar="MODEL.gguf")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    lines = [*handbook(), *paragraphs("xquad", "docqa_xquad/xquad_en.jsonl", ["words"], arguments.embedding)]
    lines += paragraphs("jsquad", "docqa_jsquad/jsquad.jsonl", ["words", "ja_words", "ja_bigrams"], None)
    lines.append(hotpotqa())
    header = ["data", "how", "texts", "questions", *(f"recall@{k}" for k in KS), "ms/question"]
    rows = [
        [line.data, line.how, str(line.texts), str(line.questions)]
        + [f"{value:.3f}" for value in line.recall]
        + [f"{line.ms_per_question:.1f}"]
        for line in lines
    ]
    print(cpu_model())
    print(table(tuple(header), rows))
    if arguments.out:
        arguments.out.write_text(json.dumps([asdict(line) for line in lines], indent=2) + "\n", encoding="utf-8")


def handbook() -> Iterable[Line]:
    pages = {page["doc_id"]: page["text"] for page in rows_of("hr_18f_handbook/docs.jsonl")}
    questions = rows_of("hr_18f_handbook/faq.jsonl")
    for size, overlap in ((300, 60), (500, 100), (800, 150), (1200, 200)):
        with tempfile.TemporaryDirectory() as folder:
            begun = time.perf_counter()
            made = Retriever("hr_18f_handbook/docs.jsonl", size=size, overlap=overlap, cache_dir=Path(folder))
            count = len(made.chunks)
            built = time.perf_counter() - begun
            begun = time.perf_counter()
            retriever = Retriever("hr_18f_handbook/docs.jsonl", size=size, overlap=overlap, cache_dir=Path(folder))
            assert retriever.fingerprint == made.fingerprint
            loaded = time.perf_counter() - begun
            print(f"handbook, {size} characters: indexed in {built:.2f} s, again from disk in {loaded:.2f} s")
        ends = {(chunk.doc_id, chunk.text): chunk.start + len(chunk.text) for chunk in retriever.chunks}
        starts = {(chunk.doc_id, chunk.text): chunk.start for chunk in retriever.chunks}
        of_page, of_answer = [], []
        begun = time.perf_counter()
        for row in questions:
            begin = pages[row["doc_id"]].index(row["answer"])
            found = [(hit.doc_id, hit.text) for hit in retriever.retrieve(row["question"], max(KS))]
            right = [key[0] == row["doc_id"] for key in found]
            spans = [starts[key] < begin + len(row["answer"]) and ends[key] > begin for key in found]
            of_page.append(first_hit(right))
            of_answer.append(first_hit([a and b for a, b in zip(right, spans, strict=True)]))
        spent = 1000 * (time.perf_counter() - begun) / len(questions)
        for what, ranks in (("page", of_page), ("answer", of_answer)):
            yield Line("handbook", f"{what}, chunks of {size}", count, len(questions), recall(ranks), spent)


def paragraphs(name: str, path: str, ways: Sequence[Segmentation], embedding: Path | None) -> Iterable[Line]:
    rows = rows_of(path)
    texts = list(dict.fromkeys(row["context"] for row in rows))
    gold = {text: number for number, text in enumerate(texts)}
    wanted = [(row["question"], {gold[row["context"]]}) for row in rows]
    indexes: dict[str, Index] = {f"BM25, {way}": Bm25Index(texts, way) for way in ways}
    if embedding is not None:
        vectors = VectorIndex(texts, gguf_embedding(embedding, n_threads=1))
        indexes |= {embedding.stem: vectors, f"BM25 + {embedding.stem}": FusedIndex([*indexes.values(), vectors])}
    for how, index in indexes.items():
        yield measured(name, how, index, len(texts), wanted)


def hotpotqa() -> Line:
    rows = rows_of("multihop_hotpotqa/hotpotqa_distractor.jsonl")
    found: dict[str, int] = {}
    wanted = []
    for row in rows:
        numbers = [
            (found.setdefault(f"{part['title']}\n{part['paragraph_text']}", len(found)), part["is_supporting"])
            for part in row["contexts"]
        ]
        wanted.append((row["question_text"], {number for number, gold in numbers if gold}))
    return measured("hotpotqa", "BM25, words", Bm25Index(list(found)), len(found), wanted)


def measured(data: str, how: str, index: Index, texts: int, wanted: Sequence[tuple[str, set[int]]]) -> Line:
    begun = time.perf_counter()
    ranked = [[hit.number for hit in index.search(question, max(KS))] for question, _ in wanted]
    spent = 1000 * (time.perf_counter() - begun) / len(wanted)
    shares = [
        sum(len(gold & set(numbers[:k])) / len(gold) for numbers, (_, gold) in zip(ranked, wanted, strict=True))
        for k in KS
    ]
    return Line(data, how, texts, len(wanted), [share / len(wanted) for share in shares], spent)


def first_hit(right: Sequence[bool]) -> int:
    return right.index(True) if True in right else max(KS)


def recall(ranks: Sequence[int]) -> list[float]:
    return [sum(rank < k for rank in ranks) / len(ranks) for k in KS]


def rows_of(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in find_data_file(path).read_text(encoding="utf-8-sig").split("\n") if line]


if __name__ == "__main__":
    main()
