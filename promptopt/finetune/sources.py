"""What a training reads: chat rows or documents, checked before any model is loaded, and as token rows."""

from collections.abc import Sequence
from dataclasses import dataclass

from promptopt.errors import TrainingError
from promptopt.finetune.base_folder import longest_context
from promptopt.finetune.documents import check_no_shared_document, chunk_documents, read_documents
from promptopt.finetune.plan import TrainingPlan
from promptopt.finetune.resident import ResidentBase
from promptopt.finetune.rows import TokenizedRows, check_no_leak, read_rows
from promptopt.records import DocumentRow, TrainingRow


@dataclass(frozen=True)
class ChatRows:
    """The rows of every method but `causal`."""

    train: Sequence[TrainingRow]
    val: Sequence[TrainingRow]

    @property
    def method(self) -> str:
        """The kind of training that these rows are for, where no method is named."""
        return "labels" if all(row.source == "gold" for row in self.train) else "sft"

    def tokenized(self, plan: TrainingPlan, base: ResidentBase) -> tuple[TokenizedRows, TokenizedRows]:
        """Return the token rows to train on and to measure."""
        limit, allowed = longest_context(plan.base_dir, plan.recipe.max_length), plan.recipe.allowed_truncated_rows
        rows = base.rows.tokenized(plan.train_rows, self.train, limit, allowed)
        _check_teacher(plan, rows)
        return rows, base.rows.tokenized(plan.val_rows, self.val, limit, allowed)


@dataclass(frozen=True)
class Documents:
    """The documents of `causal`."""

    train: Sequence[DocumentRow]
    val: Sequence[DocumentRow]
    end_of_text: str | None
    method: str = "causal"

    def tokenized(self, plan: TrainingPlan, base: ResidentBase) -> tuple[TokenizedRows, TokenizedRows]:
        """Return the token rows to train on and to measure."""
        limit = longest_context(plan.base_dir, plan.recipe.max_length)
        train, val = (
            chunk_documents(documents, base.tokenizer, limit, self.end_of_text) for documents in (self.train, self.val)
        )
        return train, val


def read_source(plan: TrainingPlan) -> ChatRows | Documents:
    """Return what `plan` trains on, read and checked.

    Raises:
        DataError: a file or a row is wrong. TrainingError: training and validation share an example.
    """
    if plan.method is not None and plan.method.kind == "causal":
        documents = read_documents(plan.train_rows), read_documents(plan.val_rows)
        check_no_shared_document(*documents)
        return Documents(*documents, plan.method.end_of_text)
    rows = read_rows(plan.train_rows), read_rows(plan.val_rows)
    check_no_leak(*rows)
    return ChatRows(*rows)


def _check_teacher(plan: TrainingPlan, rows: TokenizedRows) -> None:
    """Raise TrainingError where the teacher is the student itself under the same prompt: there is nothing to learn."""
    method = plan.method
    if method is None or method.kind not in ("self_distill", "on_policy") or plan.start_from is not None:
        return
    other = method.kind == "on_policy" and method.teacher is not None
    if not other and all(row.teacher_ids in ((), row.given_ids) for row in rows.rows):
        raise TrainingError(
            f"{method.kind!r} teaches the base what it says under a longer prompt, but in all {len(rows.rows)} rows "
            "the student's prompt is the teacher's. Let the student see less (finetune.student_instructions: none, or "
            "student_demos: 0), or name another model as the teacher (kind: on_policy)."
        )
