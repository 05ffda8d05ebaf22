"""What a teacher writes about: documents of a source, cut into passages that it can read at once. Asks no LM."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from promptopt.config.data import DataConfig, SplitSizes
from promptopt.config.synthesis import SynthesisConfig
from promptopt.data.loaders import load_rows
from promptopt.errors import DataError
from promptopt.records import DataRow

_PARAGRAPH = re.compile(r"\n\s*\n")
_SENTENCE = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])")
_SHORTEST = 20


@dataclass(frozen=True)
class SourceDocument:
    """One document.

    Attributes:
        id: as the source names it, else the content hash of its row.
        passages: pieces of its text, in order; one empty piece where there are only keywords.
        keywords: given by the source; empty = to be taken from the passage.
    """

    id: str
    passages: tuple[str, ...]
    keywords: tuple[str, ...] = ()


def load_documents(config: SynthesisConfig) -> tuple[tuple[SourceDocument, ...], int]:
    """Return the documents of `config.source`, in its order, and how many of its rows were bad.

    Raises:
        DataError: the source is missing, unreadable or empty, too many rows are bad, or no document has any text.
    """
    columns = config.columns
    data = DataConfig(
        source=config.source, fields=columns, inputs=tuple(columns), split=SplitSizes(train=1, val=1, test=1),
        bad_rows_allowed=config.bad_rows_allowed,
    )  # fmt: skip
    loaded = load_rows(data)
    documents = [_document(row, config.passage_characters) for row in loaded.rows]
    found = tuple(document for document in documents if any(document.passages) or document.keywords)
    if not found:
        raise DataError(f"None of the {len(documents)} rows of the source holds text in column {columns!r}.")
    ids = [document.id for document in found]
    if len(set(ids)) < len(ids):
        twice = sorted({name for name in ids if ids.count(name) > 1})[:3]
        raise DataError(f"The source names document_id {twice} twice. Map a column that tells documents apart.")
    return found, loaded.bad_rows


def _document(row: DataRow, longest: int) -> SourceDocument:
    text = row.fields.get("document")
    if text is not None and not isinstance(text, str):
        raise DataError(f"Row {row.id}: field 'document' is a {type(text).__name__}; it must be text.")
    name = row.fields.get("document_id")
    keywords = tuple(dict.fromkeys(_keywords(row))) if "keywords" in row.fields else ()
    return SourceDocument(row.id if name in (None, "") else str(name), cut_passages(text or "", longest), keywords)


def _keywords(row: DataRow) -> list[str]:
    value = row.fields["keywords"]
    parts = re.split(r"[,、;\n]", value) if isinstance(value, str) else value
    if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
        raise DataError(
            f"Row {row.id}: field 'keywords' is {value!r:.80}; it must be a list of texts, or one with commas."
        )
    return [part.strip() for part in parts if isinstance(part, str) and part.strip()]


def cut_passages(text: str, longest: int) -> tuple[str, ...]:
    """Return `text` in pieces of at most `longest` characters: whole paragraphs, else sentences, else as it comes.

    Pieces of under 20 characters (a page number, a heading) are left out where there are longer ones.
    """
    pieces: list[str] = []
    for paragraph in _PARAGRAPH.split(text.strip()):
        _pack(pieces, [paragraph] if len(paragraph) <= longest else _sentences(paragraph, longest), longest)
    long_enough = tuple(piece for piece in pieces if len(piece) >= _SHORTEST)
    return long_enough or tuple(pieces[:1]) or ("",)


def _pack(pieces: list[str], parts: Sequence[str], longest: int) -> None:
    joint = "\n\n"
    for part in filter(None, (part.strip() for part in parts)):
        if pieces and len(pieces[-1]) + len(joint) + len(part) <= longest:
            pieces[-1] += joint + part
        else:
            pieces.append(part)
        joint = " "


def _sentences(paragraph: str, longest: int) -> list[str]:
    sentences = _SENTENCE.split(paragraph)
    return [sentence[i : i + longest] for sentence in sentences for i in range(0, len(sentence), longest)]
