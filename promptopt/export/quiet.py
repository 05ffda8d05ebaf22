"""Keeps transformers' and PEFT's progress bars and known idle warnings off the user's screen while they work for us."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from promptopt.extras import require

_IDLE_WARNINGS = (
    "`is_gradient_checkpointing` is deprecated",  # PEFT 0.21 asks transformers 5 in its old words
    "Model has `tie_word_embeddings=True`",  # merge unties where it matters
)


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Silence progress bars and the warnings listed above inside the block."""
    logging = require("transformers").utils.logging
    showed_bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            for message in _IDLE_WARNINGS:
                warnings.filterwarnings("ignore", message=message)
            yield
    finally:
        if showed_bars:
            logging.enable_progress_bar()
