"""Builds the trainer of a training method. Imported only when training starts."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset

from promptopt.config.methods import OnPolicy, SelfDistill
from promptopt.errors import TrainingError
from promptopt.finetune.arguments import on_policy_arguments, self_distill_arguments, sft_arguments
from promptopt.finetune.base_folder import end_token_ids, longest_context
from promptopt.finetune.base_model import LoadedBase, load_base, load_tokenizer
from promptopt.finetune.plan import TrainingPlan
from promptopt.finetune.rows import TokenizedRows
from promptopt.finetune.teaching import TeachingCollator, answer_tokens, teaching_columns
from promptopt.finetune.trainer import RowTrainer


@dataclass(frozen=True)
class TrainerParts:
    """What every trainer is built from.

    Attributes:
        fresh: whether training starts at step 0.
        common: arguments of `RunTrainer` and of every trainer of TRL.
        end_ids: tokens at which generation stops.
    """

    base: LoadedBase
    plan: TrainingPlan
    rows: TokenizedRows
    pad_id: int
    fresh: bool
    end_ids: frozenset[int]
    common: dict[str, Any]


def build_trainer(parts: TrainerParts) -> Any:
    """Return the trainer of the plan's method, a `RunTrainer` and a trainer of TRL.

    Raises:
        TrainingError: the teacher's tokenizer is another one, or a row leaves no room for a sampled answer.
    """
    method = parts.plan.method
    if isinstance(method, SelfDistill):
        return _self_distill(parts, method)
    if isinstance(method, OnPolicy):
        return _on_policy(parts, method)
    return _rows(parts, packed=parts.plan.recipe.packing or (method is not None and method.kind == "causal"))


def _rows(parts: TrainerParts, *, packed: bool) -> RowTrainer:
    plan, rows = parts.plan, parts.rows.rows
    lengths = [len(row.input_ids) for row in rows]
    return RowTrainer(
        train_lengths=None if packed else lengths,
        args=sft_arguments(
            plan.recipe, plan.checkpoints, plan.seed, parts.base.device, max(lengths), fresh=parts.fresh, packed=packed
        ),
        train_dataset=Dataset.from_dict(
            {"input_ids": [list(row.input_ids) for row in rows], "labels": [row.labels for row in rows]}
        ),
        **parts.common,
    )


def _self_distill(parts: TrainerParts, method: SelfDistill) -> Any:
    from promptopt.finetune.self_distill import SelfDistillTrainer

    plan, rows = parts.plan, parts.rows.rows
    longest = _answer_tokens(parts, method.max_answer_tokens)
    _end_at(parts)
    return SelfDistillTrainer(
        train_lengths=[row.length for row in rows],
        args=self_distill_arguments(
            plan.recipe, plan.checkpoints, plan.seed, parts.base.device, method, longest, fresh=parts.fresh
        ),
        train_dataset=Dataset.from_dict(
            {
                "prompt": [list(row.given_ids) for row in rows],
                "privileged_context": [list(row.teacher_ids or row.given_ids) for row in rows],
            }
        ),
        **parts.common,
    )


def _on_policy(parts: TrainerParts, method: OnPolicy) -> Any:
    from promptopt.finetune.on_policy import OnPolicyTrainer

    plan, rows = parts.plan, parts.rows.rows
    longest = _answer_tokens(parts, method.max_answer_tokens)
    teacher = None if method.teacher is None else _load_teacher(parts, Path(method.teacher).expanduser())
    _end_at(parts)
    return OnPolicyTrainer(
        teacher=teacher,
        train_lengths=[row.length for row in rows],
        args=on_policy_arguments(
            plan.recipe, plan.checkpoints, plan.seed, parts.base.device, method, longest, fresh=parts.fresh
        ),
        train_dataset=Dataset.from_dict(teaching_columns(rows)),
        data_collator=TeachingCollator(parts.pad_id),
        **parts.common,
    )


def _answer_tokens(parts: TrainerParts, limit: int | None) -> int:
    rows, plan = parts.rows.rows, parts.plan
    longest = answer_tokens(rows, limit)
    prompt = max(max(len(row.given_ids), len(row.teacher_ids)) for row in rows)
    context = longest_context(plan.base_dir, prompt + longest)
    if prompt + longest > context:
        raise TrainingError(
            f"A prompt of {prompt} tokens with a sampled answer of up to {longest} does not fit into the model's "
            f"context of {context}. Set max_answer_tokens of the training stage to {context - prompt} at most, or "
            "choose a layout with a shorter prompt."
        )
    return longest


def _end_at(parts: TrainerParts) -> None:
    """Let sampling stop where serving stops; the base gets its own configuration back after the training."""
    parts.base.model.generation_config.eos_token_id = sorted(parts.end_ids)
    parts.base.model.generation_config.pad_token_id = parts.pad_id


def _load_teacher(parts: TrainerParts, folder: Path) -> Any:
    teacher = load_tokenizer(folder)
    ids = end_token_ids(folder, teacher.eos_token_id if isinstance(teacher.eos_token_id, int) else None)
    if teacher.get_vocab() != parts.base.tokenizer.get_vocab() or not ids & parts.end_ids:
        raise TrainingError(
            f"The teacher {folder} has another tokenizer than {parts.plan.base_dir}; token by token they cannot be "
            "compared. Take a larger model of the same family, or learn from its answers with `kind: sft`."
        )
    loaded = load_base(folder, parts.plan.recipe.base_quantization, device=parts.base.device, tokenizer=teacher)
    return loaded.model.eval()
