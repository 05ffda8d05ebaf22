"""Chat JSONL -> token rows for training, with every check that a trainer would leave out. Knows no model and no torch.

TRL drops rows whose completion was cut off without a word and only warns about a prompt that is not a prefix of the
whole chat (TRL 1.16, facts of this project). Both would train a model on other text than it is served; here both stop
the run.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from promptopt.errors import DataError, TrainingError
from promptopt.finetune.chat_tokens import ChatTokenizer
from promptopt.records import TrainingRow

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

IGNORED_LABEL = -100
"""Label of a token without loss; the value torch's cross entropy ignores."""


@dataclass(frozen=True)
class TokenRow:
    """One row as the model sees it.

    Attributes:
        input_ids: prompt, prefill, completion, end of turn.
        prompt_tokens: how many of them are prompt and prefill: given when served, without loss when trained.
        teacher_ids: what a teacher is given in their place: its own prompt and the prefill; () = the same tokens.
    """

    id: str
    input_ids: tuple[int, ...]
    prompt_tokens: int
    teacher_ids: tuple[int, ...] = ()

    @property
    def labels(self) -> list[int]:
        """`input_ids` with the prompt's tokens ignored."""
        return [IGNORED_LABEL] * self.prompt_tokens + list(self.input_ids[self.prompt_tokens :])

    @property
    def completion_tokens(self) -> int:
        """How many tokens carry loss, the end of the turn included."""
        return len(self.input_ids) - self.prompt_tokens

    @property
    def given_ids(self) -> tuple[int, ...]:
        """The tokens of prompt and prefill."""
        return self.input_ids[: self.prompt_tokens]

    @property
    def length(self) -> int:
        """Tokens of the row as the student or the teacher reads it, whichever is more."""
        return max(len(self.input_ids), len(self.teacher_ids) + self.completion_tokens)


@dataclass(frozen=True)
class TokenizedRows:
    """Rows that are trained on or measured, and the ids of those that were too long."""

    rows: tuple[TokenRow, ...]
    dropped_ids: tuple[str, ...] = ()


def read_rows(path: Path) -> list[TrainingRow]:
    """Return the rows of a JSONL file of `TrainingRow`s; blank lines are skipped.

    Raises:
        DataError: the file is missing, unreadable or empty, or a line is no `TrainingRow`; says which line.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"The training rows {path} cannot be read: {error.strerror}. Run the distill stage first."
        ) from error
    rows: list[TrainingRow] = []
    # Split at "\n" alone: JSON strings may hold U+2028 and other characters at which str.splitlines would split.
    for number, line in enumerate(data.split(b"\n"), start=1):
        if line.strip():
            rows.append(_parse_row(line, f"{path}:{number}"))
    if not rows:
        raise DataError(f"{path} holds no rows; at least 1 is needed. Check what the distill stage kept.")
    return rows


def _parse_row(line: bytes, place: str) -> TrainingRow:
    try:
        row = TrainingRow.model_validate_json(line)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the line"
        raise DataError(
            f"{place}: {where}: {first['msg']}. A row is one JSON object with id, prompt (a list of role and content) "
            "and completion; prefill and source are optional."
        ) from error
    if not row.prompt:
        raise DataError(f"{place}: row {row.id!r} has an empty prompt; at least 1 message is needed.")
    if any(prompt and prompt[-1].role == "assistant" for prompt in (row.prompt, row.teacher_prompt)):
        raise DataError(
            f"{place}: a prompt of row {row.id!r} ends with an assistant message. Text that opens the answer belongs "
            "into `prefill`."
        )
    if not row.completion.startswith(row.prefill):
        raise DataError(
            f"{place}: the completion of row {row.id!r} does not start with its prefill {row.prefill!r}. "
            "`completion` is the whole answer, prefill included."
        )
    if row.completion == row.prefill:
        raise DataError(
            f"{place}: row {row.id!r} has an empty completion (after its prefill {row.prefill!r}): nothing to learn."
        )
    return row


def check_no_leak(train: Sequence[TrainingRow], val: Sequence[TrainingRow]) -> None:
    """Raise TrainingError when a row stands in both, by id or by identical prompt and completion.

    A shared row makes the evaluation loss, and so the choice of the best checkpoint, worthless.
    """
    ids = {row.id for row in train}
    texts = {(row.prompt, row.completion): row.id for row in train}
    shared = [(row.id, row.id) for row in val if row.id in ids]
    others = [(texts.get((row.prompt, row.completion)), row.id) for row in val if row.id not in ids]
    shared += [(train_id, val_id) for train_id, val_id in others if train_id is not None]
    if shared:
        train_id, val_id = shared[0]
        raise TrainingError(
            f"{len(shared)} of {len(val)} validation rows also stand among the {len(train)} training rows; the first "
            f"is training row {train_id!r} = validation row {val_id!r}. Split by content, so that no row is in both."
        )


def tokenize_rows(
    rows: Sequence[TrainingRow],
    tokenizer: "PreTrainedTokenizerBase",
    max_length: int,
    allowed_truncated: int,
    end_ids: frozenset[int] | None = None,
) -> TokenizedRows:
    """Return `rows` as token ids, exactly as they are served: prompt and prefill given, the rest generated.

    Args:
        max_length: longest row in tokens, end of turn included. Longer rows are never cut: they are dropped, and only
            as many as `allowed_truncated` admits.
        end_ids: tokens at which generation stops; None = the tokenizer's EOS token.

    Raises:
        TrainingError: no chat template, a template that renders the answer differently from what is served, an end of
            turn at which generation would not stop, or more than `allowed_truncated` rows that are too long.
    """
    chat = ChatTokenizer(tokenizer, end_ids)
    tokenized = [_token_row(row, chat) for row in rows]
    dropped = [row for row in tokenized if row.length > max_length]
    if len(dropped) > allowed_truncated:
        longest = max(dropped, key=lambda row: row.length)
        raise TrainingError(
            f"{len(dropped)} of {len(rows)} rows are longer than {max_length} tokens, and "
            f"finetune.allowed_truncated_rows admits {allowed_truncated}. The longest, {longest.id!r}, has "
            f"{longest.length} tokens ({longest.length - longest.completion_tokens} of them prompt). Raise "
            f"finetune.max_length to {longest.length} if the model's context allows it, choose a layout with a shorter "
            f"prompt, or set finetune.allowed_truncated_rows to {len(dropped)} to train without these rows."
        )
    kept = tuple(row for row in tokenized if row.length <= max_length)
    if not kept:
        raise TrainingError(f"All {len(rows)} rows are longer than {max_length} tokens; none is left to train on.")
    if dropped:
        logger.warning("%d of %d rows are longer than %d tokens and left out", len(dropped), len(rows), max_length)
    return TokenizedRows(kept, tuple(row.id for row in dropped))


def _token_row(row: TrainingRow, chat: ChatTokenizer) -> TokenRow:
    given, generated = chat.split_ids(row)
    teacher = chat.given_ids(row, row.teacher_prompt) if row.teacher_prompt else ()
    return TokenRow(row.id, (*given, *generated), len(given), tuple(teacher))
