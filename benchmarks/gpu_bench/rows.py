"""Chat rows of made-up words with a given number of tokens, a quarter of them answer."""

import random
from pathlib import Path

from random_models import word_tokenizer, word_tokens

from promptopt.records import ChatMessage, TrainingRow

_FRAME = 16
"""Tokens of the chat template around prompt and answer, about."""


def write_rows(path: Path, count: int, tokens: int, seed: int) -> Path:
    """Write `count` rows of about `tokens` tokens each to `path`."""
    tokenizer = word_tokenizer()
    words = [tokenizer.decode([token]).strip() for token in word_tokens(tokenizer)]
    generator = random.Random(seed)

    def text(length: int) -> str:
        return " ".join(generator.choice(words) for _ in range(max(1, length)))

    answer = max(1, tokens // 4)
    rows = [
        TrainingRow(
            id=f"{seed}-{number}",
            prompt=(ChatMessage(role="user", content=text(tokens - answer - _FRAME)),),
            completion=text(answer),
        )
        for number in range(count)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(row.model_dump_json() + "\n" for row in rows), encoding="utf-8")
    return path
