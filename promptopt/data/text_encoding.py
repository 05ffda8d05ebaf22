"""Bytes of a text file -> text, or a sentence on why they are none. Imports nothing of promptopt."""

import codecs
import re

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it starts with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_JAPANESE = ("cp932", "euc_jp")
_DETECTED = (*_JAPANESE, "cp1252")
_ISO_2022_JP = (b"\x1b$B", b"\x1b$@")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f\x7f-\x9f\ufffe\uffff]")
_KANA = re.compile(r"[\u3041-\u309f\u30a0-\u30ff]")
_LEAST_KANA = 0.1
"""Share of kana among the characters beyond ASCII, below which a text is not taken for Japanese."""
_LONGEST_SAMPLE = 1 << 20


class EncodingError(ValueError):
    """The bytes are no text, or none in an encoding that can be told."""


def decode_text(data: bytes, encoding: str = "auto") -> str:
    """Return the text in `data`, without byte order mark, its lines ended by line feeds.

    Args:
        encoding: as Python names it; "auto": a byte order mark decides, else UTF-8 where the bytes allow it, else
            Shift_JIS (cp932), EUC-JP, ISO-2022-JP or Windows-1252 where charset-normalizer finds one of them and the
            outcome is plausible. Other legacy encodings look too much alike: they must be named.

    Raises:
        EncodingError: none fits, or what comes out holds control characters, as binary files do.
    """
    text = _decode(data, encoding)
    if found := _CONTROL.search(text):
        raise EncodingError(f"is binary, not text: it holds the control character U+{ord(found.group()):04X}")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _decode(data: bytes, encoding: str) -> str:
    if encoding != "auto":
        return _strictly(data, encoding)
    for mark, marked in _MARKS:
        if data.startswith(mark):
            return _strictly(data, marked)
    if any(escape in data for escape in _ISO_2022_JP):
        return _strictly(data, "iso2022_jp")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        return _detect(data, f"byte {data[error.start]:#04x} at {error.start} is not UTF-8")


def _strictly(data: bytes, encoding: str) -> str:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise EncodingError(f"is not {encoding}: {error.reason} at byte {error.start}") from error


def _detect(data: bytes, not_utf8: str) -> str:
    import charset_normalizer

    advice = "convert it to UTF-8, or name its `encoding`"
    if b"\0" in data:
        raise EncodingError(f"is binary, or UTF-16 without a byte order mark; {advice}")
    # The end of a sample may cut a character in two, which detection forgives and decoding does not.
    best = charset_normalizer.from_bytes(data[:_LONGEST_SAMPLE], cp_isolation=list(_DETECTED)).best()
    if best is None:
        raise EncodingError(f"is in no encoding that can be told for sure ({not_utf8}); {advice}")
    text = _strictly(data, best.encoding)
    beyond_ascii = sum(character > "\x7f" for character in text)
    if best.encoding in _JAPANESE and len(_KANA.findall(text)) < _LEAST_KANA * beyond_ascii:
        raise EncodingError(f"looks like {best.encoding}, but would not be Japanese in it ({not_utf8}); {advice}")
    return text
