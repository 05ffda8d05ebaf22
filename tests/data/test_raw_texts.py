"""Raw texts from folders and JSONL files, each once, and split by content."""

from pathlib import Path

import pytest

from promptopt.data.raw_texts import load_documents, split_documents
from promptopt.errors import DataError
from promptopt.records import DocumentRow
from tests.data import document_files as made


def test_a_folder_is_read_to_the_bottom_and_equal_texts_count_once(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for name, text in (("x.txt", "one"), ("a/y.MD", "two"), ("a/z.txt", "one"), ("picture.png", "no text")):
        (tmp_path / name).write_text(text)
    (tmp_path / "b.txt").write_text("four", encoding="utf-8-sig")
    (tmp_path / "a" / "p.pdf").write_bytes(made.pdf("five", "six"))
    (tmp_path / "w.docx").write_bytes(made.word("seven"))
    texts = ["five\n\nsix", "four", "one", "seven", "two"]
    assert sorted(row.text for row in load_documents(tmp_path)) == texts


def test_a_jsonl_file_names_its_field(tmp_path: Path) -> None:
    path = tmp_path / "docs.jsonl"
    path.write_text('{"title": "t", "body": "one\\u2028two"}\n\n{"title": "u", "body": "three"}\n{"body": " "}\n')
    assert [row.text for row in load_documents(path, "body")] == ["one\u2028two", "three"]
    with pytest.raises(DataError, match=r"docs.jsonl, line 1: no text in field 'text'; found \['body', 'title'\]"):
        load_documents(path)


def test_what_is_no_document_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no data file"):
        load_documents(tmp_path / "none")
    with pytest.raises(DataError, match="holds no document"):
        load_documents(tmp_path)
    (tmp_path / "a.jsonl").write_text("{")
    with pytest.raises(DataError, match=r"a\.jsonl, line 1: not JSON"):
        load_documents(tmp_path / "a.jsonl")
    (tmp_path / "e.jsonl").write_text("")
    with pytest.raises(DataError, match="holds no text"):
        load_documents(tmp_path / "e.jsonl")


@pytest.mark.parametrize(
    ("name", "data", "problem"),
    [
        ("b.txt", b"\x7fELF\x02\x01\x01" + bytes(64), "is binary"),
        ("e.txt", b" \n", "is empty"),
        ("cut.pdf", made.pdf("text")[:200], "is a damaged PDF"),
    ],
)
def test_a_bad_document_stops_the_reading_in_one_sentence(tmp_path: Path, name: str, data: bytes, problem: str) -> None:
    (tmp_path / "a.txt").write_text("good")
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=f"{name}: the document .*{problem}") as caught:
        load_documents(tmp_path)
    assert "\n" not in str(caught.value)


def test_the_split_depends_on_content_alone_and_shares_nothing() -> None:
    documents = [DocumentRow(id=f"{n:02}", text=str(n)) for n in range(20)]
    train, val = split_documents(documents, 0.1)
    assert (len(train), len(val)) == (18, 2)
    assert not {row.id for row in train} & {row.id for row in val}
    assert {row.id for row in split_documents(documents[::-1], 0.1)[1]} == {row.id for row in val}
    assert [len(part) for part in split_documents(documents[:2], 0.9)] == [1, 1]
    with pytest.raises(DataError, match="at least 2"):
        split_documents(documents[:1], 0.1)
