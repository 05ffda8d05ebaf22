"""Training stages: the methods that an experiment trains with, in order, each with its data, recipe and seed."""

import difflib
from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue

from promptopt.config.data import ConfigModel
from promptopt.config.methods import Causal, Labels, OnPolicy, SelfDistill, Sft
from promptopt.config.recipe import TrainingRecipe

TEACHER_OF: dict[str, Literal["gold", "candidate"]] = {"labels": "gold", "sft": "candidate"}
"""Kind -> what `distill.teacher` says of it."""
_OF_ALL_STAGES = (
    "base_quantization", "rank", "alpha", "rslora", "target_modules",
    "student_instructions", "student_demos", "student_reasoning",
)  # fmt: skip
"""The LoRA weights go on from stage to stage, and so does the prompt that the student is served under."""
_CHOSEN = ("rank", "alpha")
"""Those of them that are chosen from model and data where `finetune` leaves them out."""

_NOT_SAMPLED = ("dropout", "packing", "neftune_noise", "loss")
"""Fields that have no meaning, or disturb the sampling, where a training samples answers from the weights it trains."""


class _Stage(ConfigModel):
    """What every training stage may say.

    Attributes:
        recipe: fields of `finetune` that differ in this stage.
        seed: of this stage; None = the experiment's.
    """

    recipe: dict[str, JsonValue] = Field(default_factory=dict)
    seed: int | None = Field(default=None, ge=0)

    def recipe_on(self, recipe: TrainingRecipe) -> TrainingRecipe:
        """Return `recipe` with this stage's changes.

        Raises:
            ValueError: a field does not exist, has a wrong value, or is the same in all stages.
        """
        for name in self.recipe:
            if name not in TrainingRecipe.model_fields:
                close = difflib.get_close_matches(name, TrainingRecipe.model_fields, n=1)
                hint = f" Did you mean {close[0]!r}?" if close else ""
                raise ValueError(f"recipe.{name}: no such field of a recipe.{hint}")
            if name in _OF_ALL_STAGES and self.recipe[name] != getattr(recipe, name):
                raise ValueError(
                    f"recipe.{name} is {self.recipe[name]!r}, and {getattr(recipe, name)!r} under `finetune`: it must "
                    "be the same in all stages, because each goes on with the LoRA weights of the one before, and one "
                    "prompt is served at the end. Set it under `finetune`"
                )
        return TrainingRecipe.model_validate({**recipe.model_dump(), **self.recipe})


class _OnRows(_Stage):
    """A stage on rows of the train split.

    Attributes:
        where: field -> values; only rows that have one of them in each of these fields are used. More specialised data
            for a later stage.
        rows: largest number of them; None = `distill.rows`.
    """

    where: dict[str, tuple[JsonValue, ...]] = Field(default_factory=dict)
    rows: int | None = Field(default=None, ge=2)

    def admits(self, fields: dict[str, Any]) -> bool:
        """Say whether this stage uses the row with these fields."""
        return all(fields.get(name) in values for name, values in self.where.items())


class SftStage(_OnRows, Sft):
    """`sft` as a training stage."""

    kind: Literal["sft"]


class LabelsStage(_OnRows, Labels):
    """`labels` as a training stage."""

    kind: Literal["labels"]


class SelfDistillStage(_OnRows, SelfDistill):
    """`self_distill` as a training stage; `distill.teacher` says whose answers its evaluation loss is measured on."""

    kind: Literal["self_distill"]


class OnPolicyStage(_OnRows, OnPolicy):
    """`on_policy` as a training stage; `distill.teacher` says whose answers the rows have."""

    kind: Literal["on_policy"]


class CausalStage(_Stage, Causal):
    """`causal` as a training stage.

    Attributes:
        documents: folder of .txt, .md, .pdf and .docx files (searched to the bottom; the extra `data`), or a JSONL file
            of texts.
        text_field: the field of a JSONL line that holds the text.
        val_share: share of the documents, by content hash, that measures the evaluation loss; one at least.
    """

    kind: Literal["causal"]
    documents: str
    text_field: str = "text"
    val_share: float = Field(default=0.1, gt=0, lt=1)


TrainingStage = Annotated[
    SftStage | LabelsStage | CausalStage | SelfDistillStage | OnPolicyStage, Field(discriminator="kind")
]
RowsStage = SftStage | LabelsStage | SelfDistillStage | OnPolicyStage


def check_stages(stages: "tuple[TrainingStage, ...]", recipe: TrainingRecipe) -> None:
    """Raise ValueError unless every stage's recipe is possible."""
    for number, stage in enumerate(stages):
        try:
            own = stage.recipe_on(recipe)
        except ValueError as error:
            raise ValueError(f"training.{number}.{_first_line(error)}") from error
        open_fields = [name for name in _CHOSEN if name in stage.recipe and name not in recipe.model_fields_set]
        if open_fields:
            raise ValueError(
                f"training.{number}.recipe.{open_fields[0]}: it must be the same in all stages, and is chosen from the "
                "data where `finetune` leaves it out. Set it under `finetune`"
            )
        if stage.kind in ("self_distill", "on_policy"):
            wrong = [name for name in _NOT_SAMPLED if getattr(own, name) != TrainingRecipe.model_fields[name].default]
            if wrong:
                raise ValueError(
                    f"training.{number} is {stage.kind!r}, which samples answers from the weights it trains; "
                    f"finetune.{wrong[0]} must be {TrainingRecipe.model_fields[wrong[0]].default!r} there"
                )


def check_teacher_differs(stages: "tuple[TrainingStage, ...]", recipe: TrainingRecipe) -> None:
    """Raise ValueError where the first stage would teach the base what it says already, under the very same prompt."""
    first = stages[0] if stages else None
    itself = isinstance(first, SelfDistillStage) or (isinstance(first, OnPolicyStage) and first.teacher is None)
    if first is not None and itself and recipe.student_instructions == "full" and recipe.student_demos is None:
        raise ValueError(
            f"training.0 is {first.kind!r}: the base teaches what it says under the whole prompt, and the student sees "
            "the whole prompt too. Set finetune.student_instructions (short, none) or finetune.student_demos (0), or "
            "name another model as the teacher (kind: on_policy)"
        )


def is_plain(stages: "tuple[TrainingStage, ...]") -> bool:
    """Say whether `stages` are what a joint study trains: one of rows, as `distill` and `finetune` describe it."""
    stage = stages[0] if len(stages) == 1 else None
    if not isinstance(stage, SftStage | LabelsStage):
        return False
    return not stage.recipe and stage.seed is None and not stage.where and stage.rows is None


def _first_line(error: ValueError) -> str:
    errors = getattr(error, "errors", None)
    if errors is None:
        return str(error)
    first = errors()[0]
    return f"recipe.{'.'.join(str(part) for part in first['loc'])}: {first['msg']}; got {first.get('input')!r}"
