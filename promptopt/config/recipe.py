"""TrainingRecipe: how the student's weights are trained. Knows nothing of TRL's or PEFT's argument names."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from promptopt.records import BestBy


class TrainingRecipe(BaseModel):
    """Hyperparameters of one QLoRA run.

    The defaults follow what was measured for small models: the learning rate matters first (about ten times that of
    full fine-tuning), all linear layers are trained, the effective batch stays under 32, the rank matters little.

    Attributes:
        base_quantization: how the frozen base is held: 4-bit NF4 or FP4 with double quantization, or unquantized.
        rank, alpha: of the LoRA weights; the update is scaled by alpha / rank, or alpha / sqrt(rank) with `rslora`.
        learning_rate: peak, after warm-up, with a linear decay to zero.
        warmup_share: share of all steps that warms up.
        batch_size: rows per device and step; times `gradient_accumulation` gives the effective batch.
        max_length: longest row in tokens; longer rows are an error unless `allowed_truncated_rows` admits them.
        patience: epochs without a better evaluation loss before training stops; None trains all epochs.
        eval_per_epoch: how many times per epoch the evaluation loss is measured and a checkpoint kept.
        best_by: which checkpoint is kept, and what patience waits for: the lowest evaluation loss, or the highest task
            metric of generated answers (the evaluation loss decides equal ones).
        watched_rows: validation rows whose answers are generated and scored at every evaluation by the stage
            `finetune`; a joint study has `search.weights.halving.rows` instead. 0 = none.
        student_instructions: what the student still sees of the instructions: all, their first sentence, or nothing.
        student_demos: how many demos the student still sees at most; None = those of the candidate.
        student_reasoning: whether a student of a reasoning candidate is asked to reason.
        row_share: share of the distilled rows that are trained on.
        min_score: rows whose answer scores less are dropped; None = what `distill.min_score` says.
        trainer_args: any other argument of TRL's trainer or of PEFT's `LoraConfig`, by name; checked before anything is
            loaded (`finetune.trainer_args`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    base_quantization: Literal["nf4", "fp4", "none"] = "nf4"
    rank: int = Field(default=16, ge=1, le=512)
    alpha: float = Field(default=32.0, gt=0)
    rslora: bool = False
    dropout: float = Field(default=0.0, ge=0, lt=1)
    target_modules: Literal["all-linear", "attention", "mlp"] = "all-linear"
    learning_rate: float = Field(default=2e-4, gt=0, lt=1)
    warmup_share: float = Field(default=0.05, ge=0, lt=1)
    weight_decay: float = Field(default=0.0, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    neftune_noise: float | None = Field(default=None, gt=0)
    epochs: float = Field(default=3.0, gt=0)
    batch_size: int = Field(default=8, ge=1)
    gradient_accumulation: int = Field(default=1, ge=1)
    loss: Literal["nll", "dft"] = "nll"
    packing: bool = False
    max_length: int = Field(default=1024, ge=16)
    allowed_truncated_rows: int = Field(default=0, ge=0)
    eval_per_epoch: int = Field(default=1, ge=1)
    patience: int | None = Field(default=2, ge=1)
    best_by: BestBy = "eval_loss"
    watched_rows: int = Field(default=16, ge=0)
    gradient_checkpointing: bool = False
    student_instructions: Literal["full", "short", "none"] = "full"
    student_demos: int | None = Field(default=None, ge=0)
    student_reasoning: Literal["keep", "drop"] = "keep"
    row_share: float = Field(default=1.0, gt=0, le=1)
    min_score: float | None = Field(default=None, ge=0, le=1)
    trainer_args: dict[str, JsonValue] = Field(default_factory=dict)

    def result_settings(self) -> dict[str, JsonValue]:
        """Return what decides the trained weights: gradient checkpointing is another way to the same gradients."""
        plain = self.model_copy(update={"gradient_checkpointing": False})
        return plain.model_dump(mode="json")
