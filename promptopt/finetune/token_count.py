"""How many tokens a text has, without loading a model: what plans and defaults are made from."""

from collections.abc import Callable
from pathlib import Path

from promptopt.extras import require
from promptopt.finetune.base_model import load_tokenizer

MESSAGE_TOKENS = 8
"""Tokens that a chat template puts around a message, about."""


def token_counter(base_dir: Path) -> Callable[[str], int]:
    """Return what counts the tokens of a text for the model in `base_dir`.

    Raises:
        ModelError: the tokenizer cannot be read. MissingExtraError: the `finetune` extra is not installed.
    """
    file = base_dir / "tokenizer.json"
    if file.is_file():
        # Ready much sooner than transformers, which brings it.
        fast = require("tokenizers").Tokenizer.from_file(str(file))
        return lambda text: len(fast.encode(text, add_special_tokens=False).ids)
    slow = load_tokenizer(base_dir)
    return lambda text: len(slow(text, add_special_tokens=False)["input_ids"])
