"""Batches for a student and a teacher that read the same answers under prompts of their own. Imports torch."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from promptopt.finetune.rows import IGNORED_LABEL, TokenRow

if TYPE_CHECKING:
    from torch import Tensor

SPARE_TOKENS = 16
"""Tokens that a sampled answer may have beyond the longest training answer."""


def answer_tokens(rows: Sequence[TokenRow], limit: int | None) -> int:
    """Return how long a sampled answer may be: `limit`, or a little more than the longest answer of `rows`."""
    return limit or max(row.completion_tokens for row in rows) + SPARE_TOKENS


def pad_side(rows: Sequence[Sequence[int]], value: int, *, left: bool) -> "tuple[Tensor, Tensor]":
    """Return (ids, mask) of shape (rows, longest), filled up with `value` on the left or on the right."""
    longest = max(len(row) for row in rows)
    ids = torch.full((len(rows), longest), value, dtype=torch.long)
    mask = torch.zeros((len(rows), longest), dtype=torch.long)
    for number, row in enumerate(rows):
        place = slice(longest - len(row), longest) if left else slice(0, len(row))
        ids[number, place] = torch.tensor(list(row), dtype=torch.long)
        mask[number, place] = 1
    return ids, mask


class TeachingCollator:
    """Rows -> tensors: prompts padded on the left, answers on the right, so that an answer starts in one column.

    The names are those that `GKDTrainer` reads; `teacher_prompts` and `teacher_prompt_mask` are this project's.
    """

    def __init__(self, pad_id: int) -> None:
        self._pad_id = pad_id

    def __call__(self, rows: Sequence[dict[str, Any]]) -> "dict[str, Tensor]":
        """Return the batch; `labels` ignore prompts and padding."""
        prompts, prompt_mask = pad_side([row["given"] for row in rows], self._pad_id, left=True)
        answers, answer_mask = pad_side([row["generated"] for row in rows], self._pad_id, left=False)
        teacher, teacher_mask = pad_side([row["teacher"] for row in rows], self._pad_id, left=True)
        labels = torch.where(answer_mask.bool(), answers, IGNORED_LABEL)
        return {
            "prompts": prompts,
            "prompt_attention_mask": prompt_mask,
            "input_ids": torch.cat([prompts, answers], dim=1),
            "attention_mask": torch.cat([prompt_mask, answer_mask], dim=1),
            "labels": torch.cat([torch.full_like(prompts, IGNORED_LABEL), labels], dim=1),
            "teacher_prompts": teacher,
            "teacher_prompt_mask": teacher_mask,
        }


def teaching_columns(rows: Sequence[TokenRow]) -> dict[str, list[list[int]]]:
    """Return the columns of a dataset that `TeachingCollator` reads."""
    return {
        "given": [list(row.given_ids) for row in rows],
        "generated": [list(row.input_ids[row.prompt_tokens :]) for row in rows],
        "teacher": [list(row.teacher_ids or row.given_ids) for row in rows],
    }


def answer_logits(model: Any, prompts: "Tensor", prompt_mask: "Tensor", answers: "Tensor", mask: "Tensor") -> "Tensor":
    """Return the logits that predict each token of `answers`, of shape (rows, answer tokens, vocabulary)."""
    attention = torch.cat([prompt_mask, mask], dim=1)
    outputs = model(
        input_ids=torch.cat([prompts, answers], dim=1),
        attention_mask=attention,
        position_ids=(attention.cumsum(dim=1) - 1).clamp(min=0),
        use_cache=False,
        logits_to_keep=answers.shape[1] + 1,
    )
    logits: Tensor = outputs.logits[:, -answers.shape[1] - 1 : -1]
    return logits
