"""TRL's SDFTTrainer on prompts that are tokens already. Imported only when training starts.

Self-distillation: Shenfeld et al. 2026, arXiv 2601.19897.
"""

import logging
from typing import Any, cast

from trl.experimental.sdft import SDFTTrainer
from trl.experimental.sdft.sdft_trainer import DemonstrationTeacherContextBuilder

from promptopt.finetune.trainer import RunTrainer

# It warns that the base of a model with LoRA weights may be another one than the student: here it is meant to be.
logging.getLogger(SDFTTrainer.__module__).setLevel(logging.ERROR)


class _GivenPrompts(DemonstrationTeacherContextBuilder):
    """Takes the teacher's whole prompt as the privileged context, instead of pasting it behind the student's."""

    def _compose_teacher_prompt(self, prompt: Any, privileged_context: Any) -> Any:
        return privileged_context


class SelfDistillTrainer(RunTrainer, SDFTTrainer):
    """SDFTTrainer whose prompts are those that are served, token for token.

    TRL would render and tokenise them itself, cut them at `max_prompt_length`, and append the teacher's context to the
    user's message; a layout may put the instructions anywhere, and a prompt that is cut is another prompt.
    """

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.teacher_context_builder = cast(Any, _GivenPrompts)(self)

    def _tokenize_prompts(self, prompts: list[list[int]]) -> list[list[int]]:
        return [list(ids) for ids in prompts]

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Return TRL's loss; count the tokens that carry it."""
        answered = int(inputs["completion_mask"].sum())
        self.trained_tokens += answered
        self._clock.count(int(inputs["prompt_mask"].sum()) + answered)
        return cast(Any, super()).compute_loss(model, inputs, return_outputs, num_items_in_batch)
