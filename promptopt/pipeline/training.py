"""The training stages of an experiment: checked before anything is computed, their rows, their folders."""

from contextlib import suppress
from pathlib import Path
from typing import Literal

from pydantic import JsonValue

from promptopt.candidate import Candidate
from promptopt.config.training import TEACHER_OF, CausalStage, RowsStage, TrainingStage
from promptopt.data.raw_texts import load_documents, split_documents
from promptopt.data.sources import find_data_file
from promptopt.distill.dataset import DistilledRows, distilled_rows
from promptopt.distill.rollouts import Rollout
from promptopt.distill.student import student_candidate
from promptopt.errors import DataError, MissingExtraError
from promptopt.finetune.base_folder import check_base_folder, file_hash, folder_hash
from promptopt.finetune.trainer_args import check_trainer_args
from promptopt.pipeline.context import RunContext
from promptopt.records import DataRow
from promptopt.rundir import write_jsonl


def check_training(context: RunContext) -> None:
    """Pass if every training stage can begin: arguments for the trainer, documents, teacher.

    Names of `trainer_args` are compared with those of TRL and PEFT where these are installed.

    Raises:
        ConfigError: an argument is unknown or not for a recipe. DataError: there are no documents. ModelError: the
            teacher's folder is incomplete.
    """
    if context.source.hf_dir is None:
        return
    for stage in context.config.training_stages:
        with suppress(MissingExtraError):
            check_trainer_args(stage.recipe_on(context.config.finetune), stage.kind)
        if isinstance(stage, CausalStage):
            find_data_file(stage.documents)
        elif stage.kind == "on_policy" and stage.teacher is not None:
            check_base_folder(Path(stage.teacher).expanduser())


def training_inputs(context: RunContext) -> dict[str, JsonValue]:
    """Return what the training stages add to the inputs of `distill` and `finetune`; nothing where none are named."""
    named = context.config.training
    if not named:
        return {}
    files: list[JsonValue] = []
    for stage in named:
        if isinstance(stage, CausalStage):
            files.append(_content_hash(find_data_file(stage.documents)))
        elif stage.kind == "on_policy" and stage.teacher is not None:
            files.append(folder_hash(Path(stage.teacher).expanduser()))
    return {"training": [stage.model_dump(mode="json") for stage in named], "files": files}


def teacher_of(context: RunContext, stage: TrainingStage) -> Literal["gold", "candidate"]:
    """Return whose answers the rows of `stage` have."""
    return TEACHER_OF.get(stage.kind, context.config.distill.teacher)


def view_teacher(context: RunContext) -> Literal["gold", "candidate"]:
    """Return what the student's prompt follows: one stage on gold answers is enough for a prompt without reasoning."""
    stages = [stage for stage in context.config.training_stages if not isinstance(stage, CausalStage)]
    gold = any(teacher_of(context, stage) == "gold" for stage in stages)
    return "gold" if gold else "candidate"


def rows_folder(distilled: Path, number: int, stages: int, kind: str) -> Path:
    """Return the folder with the rows of a training stage: that of the stage `distill` where there is only one."""
    return distilled if stages == 1 else distilled / f"{number + 1}-{kind}"


def wanted_rows(context: RunContext, stage: RowsStage, rows: list[DataRow]) -> list[DataRow]:
    """Return the rows of the train split that `stage` is about.

    Raises:
        DataError: fewer than two are.
    """
    admitted = [row for row in rows if stage.admits(row.fields)]
    if len(admitted) < 2:
        raise DataError(
            f"The training stage {stage.kind!r} is about {len(admitted)} of the {len(rows)} rows of the train split "
            f"(where: {dict(stage.where)}); at least 2 are needed. Compare `where` with the values of the data."
        )
    return admitted[: stage.rows or context.config.distill.rows]


def stage_rows(
    context: RunContext, stage: RowsStage, best: Candidate, student: Candidate, rollouts: list[Rollout]
) -> DistilledRows:
    """Return the rows that `stage` trains on, in the student's prompt and, where it learns from one, the teacher's."""
    config = context.config
    recipe = stage.recipe_on(config.finetune)
    least = config.distill.min_score if recipe.min_score is None else recipe.min_score
    teacher = None
    if stage.kind in ("self_distill", "on_policy"):
        # The whole prompt; its reasoning alone follows the student's, whose answers the teacher reads.
        whole = {"student_instructions": "full", "student_demos": None}
        teacher = student_candidate(best, view_teacher(context), config.finetune.model_copy(update=whole))
    return distilled_rows(
        context.program, student, rollouts, least, config.distill.val_share, recipe.row_share, teacher=teacher
    )


def write_documents(stage: CausalStage, folder: Path) -> dict[str, int]:
    """Write the documents of `stage` as folder/{train,val}.jsonl; return how many each has."""
    train, val = split_documents(load_documents(find_data_file(stage.documents), stage.text_field), stage.val_share)
    write_jsonl(folder / "train.jsonl", train)
    write_jsonl(folder / "val.jsonl", val)
    return {"train": len(train), "val": len(val)}


def _content_hash(path: Path) -> JsonValue:
    if path.is_file():
        return file_hash(path)
    return [[str(file.relative_to(path)), file_hash(file)] for file in sorted(path.rglob("*")) if file.is_file()]
