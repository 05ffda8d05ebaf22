"""Chunks end where sentences end, overlap by whole sentences, and lose no text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptopt.data.documents import Document
from promptopt.errors import ConfigError
from promptopt.retrieval.chunking import Chunk, chunks_of


def cut(text: str, size: int, overlap: int = 0) -> list[Chunk]:
    return chunks_of([Document("d", "Title", text, "", [text])], size, overlap)


def test_chunks_are_whole_sentences_that_repeat_the_last_one() -> None:
    text = "One is here. Two is here. Three is pi, 3.14 or so. Four!"
    assert [chunk.text for chunk in cut(text, 40, 15)] == [
        "One is here. Two is here.",
        "Two is here. Three is pi, 3.14 or so.",
        "Four!",
    ]


def test_japanese_sentences_need_no_blank() -> None:
    text = "今日は雨だ。傘がいる。「本当か？」と聞いた。"
    assert [chunk.text for chunk in cut(text, 11)] == ["今日は雨だ。傘がいる。", "「本当か？」と聞いた。"]


def test_a_heading_ends_at_an_empty_line() -> None:
    assert [chunk.text for chunk in cut("# Head\n\nText of it", 12)] == ["# Head", "Text of it"]


def test_a_sentence_that_is_too_long_is_cut_at_a_blank_where_there_is_one() -> None:
    assert [chunk.text for chunk in cut("aaaa bbbb cccc", 10)] == ["aaaa bbbb", "cccc"]
    assert [chunk.text for chunk in cut("あ" * 25, 10)] == ["あ" * 10, "あ" * 10, "あ" * 5]


def test_empty_documents_have_no_chunks() -> None:
    assert cut("", 10) == []
    assert cut(" \n\n \n", 10) == []


@given(st.text(alphabet="ab .。\n？!", max_size=120), st.integers(1, 30), st.integers(0, 29))
def test_no_text_is_lost_none_is_too_long_and_places_are_true(text: str, size: int, overlap: int) -> None:
    chunks = cut(text, size, min(overlap, size - 1))
    assert all(1 <= len(chunk.text) <= size for chunk in chunks)
    covered = set()
    for chunk in chunks:
        at = text.index(chunk.text, chunk.start)
        assert text[chunk.start : at].strip() == ""
        covered |= set(range(at, at + len(chunk.text)))
    assert all(mark.isspace() for number, mark in enumerate(text) if number not in covered)
    assert [chunk.start for chunk in chunks] == sorted({chunk.start for chunk in chunks})


@pytest.mark.parametrize(("size", "overlap"), [(0, 0), (10, 10), (10, -1)])
def test_sizes_that_make_no_sense_are_refused(size: int, overlap: int) -> None:
    with pytest.raises(ConfigError, match="size must be at least 1"):
        cut("text", size, overlap)
