"""Documents into chunks: pieces of text that end where sentences end, and overlap. Ranks nothing."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from promptopt.data.documents import Document
from promptopt.errors import ConfigError

# A sentence with the white space after it: Western ends need a blank behind them (3.14, e.g.), Japanese ones do not;
# an empty line ends headings and list items that have no full stop.
_SENTENCE = re.compile(r".+?(?:[.!?][\"')\]]*(?=\s)|[。！？][」』）]*|\n[ \t]*\n|\Z)\s*", re.DOTALL)


@dataclass(frozen=True)
class Chunk:
    """A piece of a document.

    Attributes:
        start: where it begins in the document's text, in characters.
    """

    doc_id: str
    title: str
    start: int
    text: str


def chunks_of(documents: Iterable[Document], size: int, overlap: int) -> list[Chunk]:
    """Return the chunks of `documents`, in order; empty documents have none.

    Args:
        size: largest length of a chunk, in characters. Only a sentence longer than that is cut inside.
        overlap: characters of whole sentences that a chunk repeats from the one before it, at most.

    Raises:
        ConfigError: the size is below 1, or the overlap is negative or not below the size.
    """
    if size < 1 or not 0 <= overlap < size:
        raise ConfigError(
            f"Chunks of {size} characters with an overlap of {overlap}: the size must be at least 1, the overlap at "
            "least 0 and below the size."
        )
    return [chunk for document in documents for chunk in _chunks(document, size, overlap)]


def _chunks(document: Document, size: int, overlap: int) -> Iterator[Chunk]:
    sentences = list(_sentences(document.text, size))
    first = 0
    while first < len(sentences):
        start, last = sentences[first][0], first + 1
        while last < len(sentences) and sentences[last][1] - start <= size:
            last += 1
        text = document.text[start : sentences[last - 1][1]]
        if text.strip():
            yield Chunk(document.doc_id, document.title, start, text.strip())
        if last == len(sentences):
            return
        # The next chunk goes back by whole sentences, but never to where this one began.
        first = next(
            (number for number in range(first + 1, last) if sentences[last - 1][1] - sentences[number][0] <= overlap),
            last,
        )


def _sentences(text: str, size: int) -> Iterator[tuple[int, int]]:
    """Yield where each sentence begins and ends; together they are the whole text."""
    for found in _SENTENCE.finditer(text):
        start, end = found.span()
        while end - start > size:
            # At white space, if there is some in the second half.
            blank = max(
                text.rfind(" ", start + size // 2, start + size), text.rfind("\n", start + size // 2, start + size)
            )
            cut = blank + 1 if blank >= 0 else start + size
            yield start, cut
            start = cut
        yield start, end
