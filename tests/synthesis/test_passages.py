"""Documents of a source, cut into passages."""

from pathlib import Path

import pytest

from promptopt.config.synthesis import SynthesisConfig
from promptopt.errors import DataError
from promptopt.synthesis.passages import cut_passages, load_documents

SENTENCE = "Unused days expire at the end of March. "


def _config(source: dict[str, object], **changes: object) -> SynthesisConfig:
    teacher = {"kind": "gguf", "path": "teacher.gguf"}
    return SynthesisConfig.model_validate(
        {"name": "x", "task": "question_answer", "source": source, "teacher": teacher, **changes}
    )


def test_paragraphs_stay_whole_and_nothing_is_lost() -> None:
    text = "\n\n".join([SENTENCE.strip() * 2, "3", SENTENCE * 20, "x" * 500])
    pieces = cut_passages(text, 300)
    assert all(len(piece) <= 300 for piece in pieces)
    assert "".join("".join(pieces).split()) == "".join(text.split())
    assert cut_passages(f"{SENTENCE}\n\n{SENTENCE}", 300) == (f"{SENTENCE.strip()}\n\n{SENTENCE.strip()}",)
    assert cut_passages("", 300) == ("",)


def test_a_folder_needs_no_fields(tmp_path: Path) -> None:
    (tmp_path / "leave.md").write_text(f"# Leave\n\n{SENTENCE * 3}")
    (tmp_path / "pay.txt").write_text("Salaries are paid on the last working day of each month, by transfer.")
    documents, bad = load_documents(_config({"kind": "documents", "path": str(tmp_path)}))
    assert [document.id for document in documents] == ["leave.md", "pay.txt"]
    assert bad == 0
    assert "expire at the end of March" in documents[0].passages[0]


def test_keywords_come_as_a_list_or_with_commas(tmp_path: Path) -> None:
    (tmp_path / "k.jsonl").write_text('{"kw": ["oak table", "oak table", "sale"]}\n{"kw": "賃貸、 東京, 駅近"}\n')
    source = {"kind": "jsonl", "path": str(tmp_path / "k.jsonl")}
    documents, _ = load_documents(_config(source, task="keywords_text", fields={"keywords": "kw"}))
    assert [document.keywords for document in documents] == [("oak table", "sale"), ("賃貸", "東京", "駅近")]
    assert documents[0].passages == ("",)


def test_what_cannot_be_used_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_text('{"id": "a", "t": "One text."}\n{"id": "a", "t": "Another text."}\n')
    source = {"kind": "jsonl", "path": str(tmp_path / "d.jsonl")}
    with pytest.raises(DataError, match=r"names document_id \['a'\] twice"):
        load_documents(_config(source, fields={"document": "t", "document_id": "id"}))
    (tmp_path / "d.jsonl").write_text('{"t": 3}\n')
    with pytest.raises(DataError, match="'document' is a int; it must be text"):
        load_documents(_config(source, fields={"document": "t"}))
    (tmp_path / "d.jsonl").write_text('{"t": " "}\n')
    with pytest.raises(DataError, match="None of the 1 rows of the source holds text"):
        load_documents(_config(source, fields={"document": "t"}))
