"""The loss is TRL's, evaluations are exact, and they come when they are due."""

from pathlib import Path
from typing import Any

import pytest

from promptopt.config.recipe import TrainingRecipe
from promptopt.finetune.base_model import load_base, quiet_libraries
from promptopt.finetune.batches import padded
from promptopt.finetune.callback import evaluation_steps
from promptopt.finetune.lora import add_lora
from promptopt.finetune.rows import TokenRow, tokenize_rows
from promptopt.finetune.trainer import completion_log_probs, completion_span
from tests.finetune.tiny_models import make_rows


@pytest.fixture(scope="module")
def wrapped(base_dir: Path) -> tuple[Any, tuple[TokenRow, ...]]:
    import torch

    with quiet_libraries():
        base = load_base(base_dir, "none", device="cpu")
        model = add_lora(base.model, TrainingRecipe(rank=4), seed=0)
    for name, value in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(value, std=0.1, generator=torch.Generator().manual_seed(1))
    return model, tokenize_rows(make_rows(6, 0, words=12), base.tokenizer, 256, 0).rows


def test_log_probabilities_are_those_of_the_whole_forward(wrapped: tuple[Any, tuple[TokenRow, ...]]) -> None:
    import torch

    model, rows = wrapped
    batch = padded(rows, pad_id=0)
    log_probs, count = completion_log_probs(model, batch)
    assert count == sum(row.completion_tokens for row in rows)
    single = []
    for row in rows:
        logits = model(torch.tensor([row.input_ids])).logits[0].log_softmax(-1).detach()
        places = range(row.prompt_tokens - 1, len(row.input_ids) - 1)
        single += [float(logits[place, row.input_ids[place + 1]]) for place in places]
    assert torch.allclose(log_probs.detach(), torch.tensor(single), atol=1e-4)


def test_the_gradient_is_that_of_trl(wrapped: tuple[Any, tuple[TokenRow, ...]]) -> None:
    import torch
    from trl.trainer.utils import add_fused_lm_head

    model, rows = wrapped
    batch = padded(rows, pad_id=0)
    weights = [value for value in model.parameters() if value.requires_grad]
    log_probs, _ = completion_log_probs(model, batch)
    ours = torch.autograd.grad(-log_probs.mean(), weights)
    base = model.get_base_model()
    add_fused_lm_head(base)
    try:
        theirs = torch.autograd.grad(model(**batch, fused_lm_head=True).loss, weights)
    finally:
        base.__dict__.pop("forward")
    for one, other in zip(ours, theirs, strict=True):
        assert torch.allclose(one, other, atol=1e-5, rtol=1e-4)


def test_the_span_starts_at_the_first_label_of_any_row() -> None:
    import torch

    labels = torch.tensor([[-100, -100, -100, 5, 6], [-100, -100, 7, -100, -100]])
    assert completion_span(labels) == 3
    assert completion_span(torch.full((2, 5), -100)) == 1


@pytest.mark.parametrize(
    ("steps_per_epoch", "eval_per_epoch", "max_steps", "expected"),
    [(6, 1, 18, {6, 12, 18}), (6, 2, 12, {3, 6, 9, 12}), (1, 3, 2, {1, 2}), (6, 1, 15, {6, 12, 15})],
)
def test_evaluations_are_spread_evenly_and_end_with_one(
    steps_per_epoch: int, eval_per_epoch: int, max_steps: int, expected: set[int]
) -> None:
    assert evaluation_steps(steps_per_epoch, eval_per_epoch, max_steps) == expected
