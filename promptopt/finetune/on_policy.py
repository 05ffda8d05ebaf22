"""TRL's GKDTrainer with a teacher that reads a prompt of its own. Imported only when training starts.

Generalized knowledge distillation: Agarwal et al. 2024, arXiv 2306.13649.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import torch
from trl.experimental.gkd import GKDTrainer

from promptopt.finetune.rows import IGNORED_LABEL
from promptopt.finetune.teaching import answer_logits
from promptopt.finetune.trainer import RunTrainer


class OnPolicyTrainer(RunTrainer, GKDTrainer):
    """GKDTrainer whose teacher is the student's base, LoRA weights off, or another model.

    Args:
        teacher: another model; None = the base.
    """

    # The loss is a mean over the tokens of one batch, whatever the dataset's answers would have had.
    loss_is_scaled_for_ga: Any = False

    def __init__(self, *, teacher: Any | None, **arguments: Any) -> None:
        super().__init__(teacher_model=teacher if teacher is not None else arguments["model"], **arguments)
        self._teacher = teacher

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Return the mean divergence per answer token between the teacher and the student, each under its prompt."""
        start = inputs["prompts"].shape[1]
        answers, mask = inputs["input_ids"][:, start:], inputs["attention_mask"][:, start:]
        counted = inputs["labels"][:, start:] != IGNORED_LABEL
        self.trained_tokens += int(counted.sum())
        self._clock.count(int(inputs["attention_mask"].sum()))
        with torch.no_grad(), self._teacher_weights(model):
            teacher = self._teacher if self._teacher is not None else model
            expected = answer_logits(teacher, inputs["teacher_prompts"], inputs["teacher_prompt_mask"], answers, mask)
        logits = answer_logits(model, inputs["prompts"], inputs["prompt_attention_mask"], answers, mask)
        return cast(Any, self).generalized_jsd_loss(
            student_logits=logits[counted].float(), teacher_logits=expected[counted].float(), beta=self.beta
        )

    def _teacher_weights(self, model: Any) -> AbstractContextManager[Any]:
        if self._teacher is not None:
            return nullcontext()
        context: AbstractContextManager[Any] = self.accelerator.unwrap_model(model).disable_adapter()
        return context
