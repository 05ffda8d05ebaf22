"""Training methods: what the weights learn from, one `kind:` each. Knows nothing of TRL's argument names."""

from typing import Annotated, Literal

from pydantic import Field

from promptopt.config.data import ConfigModel

MethodKind = Literal["sft", "labels", "causal", "self_distill", "on_policy"]


class Sft(ConfigModel):
    """Supervised fine-tuning on the teacher's accepted answers (`distill.teacher: candidate`)."""

    kind: Literal["sft"] = "sft"


class Labels(ConfigModel):
    """Supervised fine-tuning on the data's own answers (`distill.teacher: gold`)."""

    kind: Literal["labels"] = "labels"


class Causal(ConfigModel):
    """Continued pre-training on raw documents: every token carries loss, documents are packed.

    Attributes:
        end_of_text: token that ends a document, as text; None = the tokenizer's EOS. Instruct models often end turns
            with their EOS, and texts with another token.
    """

    kind: Literal["causal"] = "causal"
    end_of_text: str | None = None


class _Sampled(ConfigModel):
    """What both methods that learn from the student's own answers have.

    Attributes:
        temperature: at which the student's answers are sampled.
        divergence: between teacher and student per token: 0 = forward KL, 1 = reverse KL, between them the generalized
            Jensen-Shannon divergence (arXiv 2306.13649, equation 1).
        max_answer_tokens: longest sampled answer; None = 16 more than the longest training answer has.
    """

    temperature: float = Field(default=1.0, gt=0, le=2)
    divergence: float = Field(default=0.5, ge=0, le=1)
    max_answer_tokens: int | None = Field(default=None, ge=1)


class SelfDistill(_Sampled):
    """A long prompt into the weights (SDFT, arXiv 2601.19897).

    The teacher is the base itself, LoRA weights off, under the whole optimized prompt; the student answers under the
    short one that the recipe leaves it, and learns the teacher's distribution over its own answers.
    """

    kind: Literal["self_distill"] = "self_distill"


class OnPolicy(_Sampled):
    """Generalized knowledge distillation (GKD, arXiv 2306.13649) on the student's own answers.

    Attributes:
        teacher: Hugging Face folder of another model with the same tokenizer; None = the base, LoRA weights off. It
            reads the whole optimized prompt.
        student_share: share of the batches whose answers the student samples; the others are the rows' own answers.
    """

    kind: Literal["on_policy"] = "on_policy"
    teacher: str | None = None
    student_share: float = Field(default=0.5, ge=0, le=1)


Method = Sft | Labels | Causal | SelfDistill | OnPolicy
AnyMethod = Annotated[Method, Field(discriminator="kind")]
