"""Token bytes -> text, with characters that span tokens and stop strings that span tokens. Knows no model."""

import codecs
from collections.abc import Sequence


class TextStream:
    """Collects the bytes of generated tokens and says when a stop string was completed."""

    def __init__(self, stop: Sequence[str] = ()) -> None:
        self._stop = tuple(stop)
        # A stop string that ends in the new text starts at most this many characters before it.
        self._reach = max((len(text) for text in self._stop), default=1) - 1
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._released = 0
        self.text = ""

    def push(self, piece: bytes) -> bool:
        """Add one token's bytes; return True when a stop string is complete, which is then cut off.

        An incomplete character waits for its other bytes; if they never come, it is left out.
        """
        before = len(self.text)
        self.text += self._decoder.decode(piece)
        if not self._stop:
            return False
        found = [self.text.find(stop, max(0, before - self._reach)) for stop in self._stop]
        hits = [at for at in found if at >= 0]
        if hits:
            self.text = self.text[: min(hits)]
        return bool(hits)

    def release(self, *, ended: bool = False) -> str:
        """Return the text that is certain by now and was not returned before.

        The beginning of a stop string is held back until it is clear that it does not become one, or the text has
        `ended`.
        """
        end = len(self.text)
        if not ended:
            end -= max((_overlap(self.text, stop) for stop in self._stop), default=0)
        piece = self.text[self._released : max(end, self._released)]
        self._released += len(piece)
        return piece


def _overlap(text: str, stop: str) -> int:
    """Return how many characters at the end of `text` are the beginning of `stop`."""
    for length in range(min(len(stop) - 1, len(text)), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
