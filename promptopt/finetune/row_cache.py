"""Token rows of the last few files, so that trainings which share rows tokenise them once."""

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from promptopt.finetune.base_folder import file_hash
from promptopt.finetune.rows import TokenizedRows, tokenize_rows
from promptopt.records import TrainingRow

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class RowCache:
    """Tokenises rows for one tokenizer and keeps the last `size` results.

    Args:
        end_ids: tokens at which generation stops.
        size: files kept; a study goes back and forth between a few.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", end_ids: frozenset[int], size: int = 8) -> None:
        self._tokenizer = tokenizer
        self._end_ids = end_ids
        self._size = size
        self._kept: OrderedDict[tuple[str, int, int], TokenizedRows] = OrderedDict()

    def tokenized(
        self, path: Path, rows: Sequence[TrainingRow], max_length: int, allowed_truncated: int
    ) -> TokenizedRows:
        """Return the `rows`, which were read from `path`, as `tokenize_rows` does; the file counts by its content.

        Raises:
            TrainingError: as `tokenize_rows`; nothing is kept then.
        """
        key = (file_hash(path), max_length, allowed_truncated)
        if key not in self._kept:
            self._kept[key] = tokenize_rows(rows, self._tokenizer, max_length, allowed_truncated, self._end_ids)
            while len(self._kept) > self._size:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]
