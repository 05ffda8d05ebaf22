"""Documents from folders and JSONL files, each once, and split by content."""

from pathlib import Path

import pytest

from promptopt.data.documents import load_documents, split_documents
from promptopt.errors import DataError
from promptopt.records import DocumentRow


def test_a_folder_is_read_to_the_bottom_and_equal_texts_count_once(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for name, text in (("x.txt", "one"), ("a/y.MD", "two"), ("a/z.txt", "one"), ("w.pdf", "three"), ("e.txt", " \n")):
        (tmp_path / name).write_text(text)
    (tmp_path / "b.txt").write_text("four", encoding="utf-8-sig")
    assert sorted(row.text for row in load_documents(tmp_path)) == ["four", "one", "two"]


def test_a_jsonl_file_names_its_field(tmp_path: Path) -> None:
    path = tmp_path / "docs.jsonl"
    path.write_text('{"title": "t", "body": "one\\u2028two"}\n\n{"title": "u", "body": "three"}\n')
    assert [row.text for row in load_documents(path, "body")] == ["one\u2028two", "three"]
    with pytest.raises(DataError, match=r"docs.jsonl:1: no text in field 'text'; found \['body', 'title'\]"):
        load_documents(path)


def test_what_is_no_document_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="do not exist"):
        load_documents(tmp_path / "none")
    with pytest.raises(DataError, match="holds no text"):
        load_documents(tmp_path)
    (tmp_path / "a.jsonl").write_text("{")
    with pytest.raises(DataError, match=r"a\.jsonl:1: no JSON"):
        load_documents(tmp_path / "a.jsonl")
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(DataError, match=r"b\.txt is not UTF-8"):
        load_documents(tmp_path)


def test_the_split_depends_on_content_alone_and_shares_nothing() -> None:
    documents = [DocumentRow(id=f"{n:02}", text=str(n)) for n in range(20)]
    train, val = split_documents(documents, 0.1)
    assert (len(train), len(val)) == (18, 2)
    assert not {row.id for row in train} & {row.id for row in val}
    assert {row.id for row in split_documents(documents[::-1], 0.1)[1]} == {row.id for row in val}
    assert [len(part) for part in split_documents(documents[:2], 0.9)] == [1, 1]
    with pytest.raises(DataError, match="at least 2"):
        split_documents(documents[:1], 0.1)
