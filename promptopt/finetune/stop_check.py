"""Does the tuned model end its turns? A look at a few validation rows, logged and never fatal."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from promptopt.finetune.rows import TokenRow

_SPARE_TOKENS = 16
_MOST_TOKENS = 128


@dataclass(frozen=True)
class StopCheck:
    """How many of `asked` rows the model answered with an end of turn."""

    stopped: int
    asked: int


def check_stops(model: Any, rows: Sequence[TokenRow], end_ids: frozenset[int], limit: int = 4) -> StopCheck:
    """Answer the first `limit` rows greedily and count those that end their turn in about the expected length."""
    asked = rows[:limit]
    was_training = model.training
    model.eval()
    stopped = 0
    with torch.no_grad():
        for row in asked:
            prompt = torch.tensor([row.input_ids[: row.prompt_tokens]], device=model.device)
            answer = model.generate(
                input_ids=prompt,
                attention_mask=torch.ones_like(prompt),
                max_new_tokens=min(row.completion_tokens + _SPARE_TOKENS, _MOST_TOKENS),
                do_sample=False,
                eos_token_id=sorted(end_ids),
                pad_token_id=min(end_ids),
            )
            stopped += int(answer[0, -1]) in end_ids
    model.train(was_training)
    return StopCheck(stopped, len(asked))
