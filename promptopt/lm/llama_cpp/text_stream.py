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
        self.text = ""

    def push(self, piece: bytes) -> bool:
        """Add one token's bytes; return True when a stop string is complete, which is then cut off.

        An incomplete character waits for its other bytes; if they never come, it is left out.
        """
        before = len(self.text)
        self.text += self._decoder.decode(piece)
        found = [self.text.find(stop, max(0, before - self._reach)) for stop in self._stop]
        hits = [at for at in found if at >= 0]
        if hits:
            self.text = self.text[: min(hits)]
        return bool(hits)
