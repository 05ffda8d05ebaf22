"""Bytes to text: marks, Japanese encodings, and refusing what is no text."""

import pytest

from promptopt.data.text_encoding import EncodingError, decode_text
from tests.data_folder import read_jsonl_file

JAPANESE = "日本語の文章です。東京は日本の首都である。"
ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-32", "cp932", "euc_jp", "iso2022_jp"]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_japanese_text_is_read_in_every_usual_encoding(encoding: str) -> None:
    assert decode_text(JAPANESE.encode(encoding)) == JAPANESE


def test_big_endian_with_mark_and_line_ends() -> None:
    assert decode_text(b"\xfe\xff" + "a\r\nb\rc".encode("utf-16-be")) == "a\nb\nc"


def test_western_text() -> None:
    text = "Zwölf Boxkämpfer jagen Viktor über den großen Sylter Deich, während die Möwen schreien."
    assert decode_text(text.encode("cp1252")) == text


def test_a_named_encoding_is_taken_strictly() -> None:
    assert decode_text("Привет".encode("koi8-r"), "koi8-r") == "Привет"
    with pytest.raises(EncodingError, match=r"is not utf-8: invalid start byte at byte 0"):
        decode_text(b"\xff", "utf-8")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"abc\0def", r"binary, not text: it holds the control character U\+0000"),
        ("日本語 abcé".encode("utf-16-le"), "UTF-16 without a byte order mark"),
        ("Привет, как дела? Всё хорошо.".encode("koi8-r"), "`encoding`"),
        ("人工智能是研究开发用于模拟延伸和扩展人的智能的理论".encode("gb18030"), "`encoding`"),
        (b"\xef\xbb\xbf\xff", "is not utf-8"),
    ],
)
def test_what_cannot_be_told_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(EncodingError, match=message):
        decode_text(data)


@pytest.mark.parametrize("encoding", ["cp932", "euc_jp"])
def test_detection_on_real_paragraphs_is_right_or_refused(encoding: str) -> None:
    """1,500 JSQuAD questions and their paragraphs: at least 97 % are read; of what is read, 99.5 % is right."""
    read = right = tried = 0
    for row in list(read_jsonl_file("docqa_jsquad/jsquad.jsonl"))[:400]:
        for text in (row["context"], row["question"]):
            try:
                data = text.encode(encoding)
            except UnicodeEncodeError:
                continue
            if data.decode(encoding) != text or data.isascii():
                continue
            tried += 1
            try:
                found = decode_text(data)
            except EncodingError:
                continue
            read += 1
            right += found == text
    assert tried > 700
    assert read >= 0.97 * tried
    assert right >= 0.995 * read
