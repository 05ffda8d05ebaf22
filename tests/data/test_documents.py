"""Folders of documents: what is read, and how little hostile ones can do."""

import contextlib
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from promptopt.config.data import DocumentLimits, DocumentsSource
from promptopt.data.document_formats import UnreadableError
from promptopt.data.document_process import DocumentProcess
from promptopt.data.readers import read_source
from promptopt.data.sources import RawRow
from promptopt.errors import DataError, MissingExtraError
from tests.data import document_files as made

SECONDS = 8.0


@pytest.fixture(scope="module")
def process() -> Iterator[DocumentProcess]:
    with DocumentProcess(DocumentLimits(seconds=SECONDS)) as one:
        yield one


def read_folder(folder: Path, **limits: Any) -> dict[str, RawRow]:
    source = DocumentsSource.model_validate({"kind": "documents", "path": str(folder), "limits": limits})
    return {str(Path(row.place).relative_to(folder)): row for row in read_source(source)}


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def test_every_format_becomes_a_row(tmp_path: Path) -> None:
    text = "第一条　この法律は、国民の権利を定める。"
    grid = (("name", "age"), ("Ada", "36"))
    write(
        tmp_path,
        {
            "b/notes.md": b"Intro\n\n## The *rules* ##\n\nBe kind.\n",
            "a.txt": b"plain\r\ntext\r\n",
            "sjis.TXT": text.encode("cp932"),
            "paper.pdf": made.pdf("First page.", "Second page.", title="A paper"),
            "law.pdf": made.japanese_pdf("東京都の条例"),
            "letter.docx": made.word("Dear Ada,", "Yours", title="A letter", table=grid),
            ".hidden.txt": b"x",
            ".git/x.txt": b"x",
            "~$letter.docx": b"x",
            "picture.png": b"x",
        },
    )
    rows = read_folder(tmp_path)
    columns = {name: row.columns or {} for name, row in rows.items()}
    assert list(columns) == ["a.txt", "b/notes.md", "law.pdf", "letter.docx", "paper.pdf", "sjis.TXT"]
    assert columns["paper.pdf"] == {
        "doc_id": "paper.pdf",
        "title": "A paper",
        "text": "First page.\n\nSecond page.",
        "path": str(tmp_path / "paper.pdf"),
        "pages": ["First page.", "Second page."],
    }
    assert (columns["a.txt"]["text"], columns["a.txt"]["title"]) == ("plain\ntext", "a")
    assert (columns["b/notes.md"]["doc_id"], columns["b/notes.md"]["title"]) == ("b/notes.md", "The *rules*")
    assert columns["law.pdf"]["text"] == "東京都の条例"
    assert columns["sjis.TXT"]["text"] == text
    assert columns["letter.docx"]["text"] == "Dear Ada,\nname\tage\nAda\t36\nYours"
    assert columns["letter.docx"]["title"] == "A letter"


def test_links_and_special_files_are_bad_rows(tmp_path: Path) -> None:
    secret = write(tmp_path / "out", {"secret.txt": b"secret"}) / "secret.txt"
    folder = write(tmp_path / "in", {"a.txt": b"text"})
    (folder / "link.txt").symlink_to(secret)
    (folder / "inside.txt").symlink_to(folder / "a.txt")
    (folder / "nothing.txt").symlink_to(folder / "absent")
    (folder / "circle.txt").symlink_to(folder / "circle.txt")
    (folder / "outside").symlink_to(tmp_path / "out")  # a folder that is a link is not entered
    os.mkfifo(folder / "pipe.txt")
    rows = read_folder(folder)
    problems = {name: row.problem for name, row in rows.items() if row.columns is None}
    assert set(rows) - set(problems) == {"a.txt", "inside.txt"}
    assert set(problems) == {"link.txt", "nothing.txt", "circle.txt", "pipe.txt"}
    assert "leads out of its folder" in problems["link.txt"]
    assert "no regular file" in problems["pipe.txt"]


@pytest.mark.parametrize(("name", "module"), [("a.pdf", "pypdf"), ("a.docx", "docx"), ("a.txt", "charset_normalizer")])
def test_a_missing_package_is_said_with_the_line_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=r"pip install 'promptopt\[data\]'"):
        read_folder(write(tmp_path, {name: b"x"}))


def test_one_file_and_empty_folder(tmp_path: Path) -> None:
    only = write(tmp_path, {"a.md": b"# A"}) / "a.md"
    source = DocumentsSource.model_validate({"kind": "documents", "path": str(only)})
    assert [(row.columns or {})["doc_id"] for row in read_source(source)] == ["a.md"]
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DataError, match=r"holds no document.*\.docx, \.md, \.pdf, \.txt"):
        read_folder(empty)


HOSTILE = {
    "empty.txt": (b"", "is empty"),
    "blank.md": (b" \n", "is empty"),
    "program.txt": (b"\x7fELF\x02\x01\x01" + bytes(64), "is binary"),
    "picture.txt": (b"\x89PNG\r\n\x1a\n\xff\xd8\xff" + bytes(range(128, 256)) * 9, "is in no encoding|is binary"),
    "korean.txt": ("인공지능은 인간의 학습능력, 추론능력".encode("euc_kr"), "name its `encoding`"),
    "page.pdf": (b"<html>no PDF</html>", "is a damaged PDF"),
    "cut.pdf": (made.pdf("text")[:200], "is a damaged PDF"),
    "scan.pdf": (made.pdf(""), "has no text"),
    "secret.pdf": (made.encrypted_pdf("password"), "is encrypted"),
    "circle.pdf": (made.circular_pdf(), "is a damaged PDF"),
    "inflating.pdf": (made.inflating_pdf(300), "is a damaged PDF.*[Ll]imit"),
    "long.pdf": (made.many_pages_pdf(6000), "has 6000 pages, 5000 are allowed"),
    "no.docx": (b"PK\x03\x04 no archive", "is a damaged .docx"),
    "old.docx": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "is encrypted, or an old .doc"),
    "hollow.docx": (made.with_part(made.word("x"), "[Content_Types].xml", b"<a/>"), "is a damaged .docx"),
    "deep.docx": (made.with_part(made.word("x"), "word/document.xml", b"<a>" * 100_000), "is a damaged .docx"),
    "laughs.docx": (made.with_part(made.word("x"), "word/document.xml", made.entities()), "declares XML entities"),
    "bomb.docx": (made.with_part(made.word("x"), "word/z.bin", bytes(20 << 20)), "is a zip bomb"),
    "large.docx": (made.with_part(made.word("x"), "word/z.bin", bytes(300 << 20)), "unpacks to 300 MiB, 256 are"),
    "liar.docx": (made.lying_word(), "is a damaged .docx"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_documents_end_in_one_sentence(name: str, process: DocumentProcess, tmp_path: Path) -> None:
    data, problem = HOSTILE[name]
    path = write(tmp_path, {name: data}) / name
    with pytest.raises(UnreadableError, match=problem) as caught:
        process.read(path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_a_document_encrypted_with_an_empty_password_is_read(process: DocumentProcess, tmp_path: Path) -> None:
    path = write(tmp_path, {"a.pdf": made.encrypted_pdf("")}) / "a.pdf"
    assert process.read(path).pages == ["Top secret."]


@pytest.mark.parametrize("data", [made.exploding_pdf(), made.slow_pdf()], ids=["forms within forms", "many operators"])
def test_a_document_that_takes_for_ever_is_given_up(data: bytes, tmp_path: Path) -> None:
    write(tmp_path, {"a.pdf": data, "b.txt": b"after"})
    start = time.monotonic()
    rows = read_folder(tmp_path, seconds=1.5)
    assert rows["a.pdf"].problem == "the document took more than 1.5 s to read (limits.seconds)"
    assert rows["b.txt"].columns is not None
    assert time.monotonic() - start < 30


def test_memory_is_bounded_and_the_next_document_is_read(tmp_path: Path) -> None:
    large = b"x" * (50 << 20) + "𠮷".encode()  # one such character makes Python take four bytes for each
    write(tmp_path, {"a.txt": b"before", "b.txt": large, "c.txt": b"after"})
    rows = read_folder(tmp_path, memory_mib=256)
    assert rows["b.txt"].problem == "the document needs more than 256 MiB of memory to be read (limits.memory_mib)"
    assert [name for name, row in rows.items() if row.columns is not None] == ["a.txt", "c.txt"]


def test_limits_of_size_and_text(tmp_path: Path) -> None:
    write(tmp_path, {"a.txt": b"x" * ((1 << 20) + 1), "b.txt": b"y" * 101, "c.docx": made.word(*["z" * 30] * 4)})
    rows = read_folder(tmp_path, file_mib=1, characters=100)
    assert rows["a.txt"].problem == "the document is larger than 1 MiB (limits.file_mib)"
    assert rows["b.txt"].problem == rows["c.docx"].problem
    assert rows["b.txt"].problem == "the document has more than 100 characters (limits.characters)"


def test_a_crash_of_the_reading_process_costs_one_document(tmp_path: Path) -> None:
    write(tmp_path, {"a.pdf": made.slow_pdf(), "b.txt": b"two"})
    with DocumentProcess(DocumentLimits(seconds=30)) as process:
        crash(process._started().pid, after_s=0.5)
        with pytest.raises(UnreadableError, match=r"crashed the process that read it \(SIGSEGV\)"):
            process.read(tmp_path / "a.pdf")
        assert process.read(tmp_path / "b.txt").pages == ["two"]


def test_a_crash_after_other_documents_is_not_blamed_on_this_one(tmp_path: Path) -> None:
    write(tmp_path, {"a.txt": b"one", "b.pdf": made.slow_pdf(20_000)})
    with DocumentProcess(DocumentLimits(seconds=30)) as process:
        process.read(tmp_path / "a.txt")
        crash(process._started().pid, after_s=0.25)
        assert process.read(tmp_path / "b.pdf").pages[0].startswith("aaa")


def crash(pid: int, after_s: float) -> None:
    """Do to a process what a fault in native code would, in the middle of its work."""

    def act() -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSEGV)

    threading.Timer(after_s, act).start()


def test_the_reading_process_ends_with_its_parent_and_knows_no_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    path = write(tmp_path, {"a.txt": b"one"}) / "a.txt"
    with DocumentProcess(DocumentLimits()) as process:
        process.read(path)
        child = process._child
        assert child is not None
        assert child.stdin is not None
        environment = Path(f"/proc/{child.pid}/environ")
        if environment.exists():
            assert b"hf_secret" not in environment.read_bytes()
        child.stdin.close()  # what the end of this process would do
        assert child.wait(10) == 0


@pytest.mark.parametrize("suffix", [".pdf", ".docx"])
def test_damaged_bytes_never_break_the_reader(suffix: str, process: DocumentProcess, tmp_path: Path) -> None:
    good = made.pdf("One page.", "Another.", title="T") if suffix == ".pdf" else made.word("One.", table=[["a", "b"]])
    chance = random.Random(suffix)
    path = tmp_path / f"document{suffix}"
    read = 0
    for _ in range(60):
        data = bytearray(good)
        for _ in range(chance.choice([1, 3, 30])):
            data[chance.randrange(len(data))] = chance.randrange(256)
        if chance.random() < 0.3:
            data = data[: chance.randrange(len(data))]
        path.write_bytes(data)
        try:
            read += bool(process.read(path).pages)
        except UnreadableError as error:
            assert "took more than" not in str(error)
            assert "crashed" not in str(error)
    assert 0 < read < 60
