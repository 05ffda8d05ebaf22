"""DSPy's training data -> the rows of a fine-tuning run, split by content. Knows no model and no job."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from promptopt.errors import DataError
from promptopt.records import ChatMessage, TrainingRow

_KEYS = frozenset(("messages", "prefill"))


def training_rows(train_data: Sequence[Mapping[str, Any]]) -> list[TrainingRow]:
    """Return each distinct prompt with its answer, as `LM.finetune` is given them, in their order.

    White space at the end of an answer is left out: chat templates differ in whether they keep it, and parsing never
    needs it. A row's id is the hash of its text.

    Args:
        train_data: {"messages": chat with the answer last}; "prefill" beside it is the part of the answer that is
            given, not learnt (`LayoutAdapter.format_finetune_data`).

    Raises:
        DataError: there is no data, or an item has another form.
    """
    if not train_data:
        raise DataError(
            "There is no training data. Where BootstrapFinetune has a metric, it keeps the examples that the teacher "
            "answered well: none was. Use a better teacher or prompt, an easier metric, or more examples."
        )
    rows = [_training_row(item, number) for number, item in enumerate(train_data, start=1)]
    return list({row.id: row for row in rows}.values())


def split_rows(rows: Sequence[TrainingRow], val_share: float) -> tuple[list[TrainingRow], list[TrainingRow]]:
    """Return (train, val); which side a row is on depends on its prompt alone, so equal prompts are never on both.

    At least one prompt is on each side: the last one in the order of their hashes is never for validation, the first
    one always.

    Raises:
        DataError: there are fewer than two prompts.
    """
    hashes = {row.id: _prompt_hash(row) for row in rows}
    prompts = sorted(set(hashes.values()))
    if len(prompts) < 2:
        raise DataError(
            f"The training data has {len(prompts)} distinct prompt(s) in {len(rows)} row(s); 2 are needed, because one "
            "measures the evaluation loss. Give more examples."
        )
    limit = max(int(val_share * 2**64), int(prompts[0], 16) + 1)
    kept = {prompt for prompt in prompts[:-1] if int(prompt, 16) < limit}
    train = [row for row in rows if hashes[row.id] not in kept]
    return train, [row for row in rows if hashes[row.id] in kept]


def _training_row(item: Mapping[str, Any], number: int) -> TrainingRow:
    messages = item.get("messages")
    if not _KEYS.issuperset(item) or not isinstance(messages, Sequence) or len(messages) < 2:
        raise DataError(
            f"Item {number} of the training data has the keys {sorted(item)}; needed are `messages` with a prompt and "
            "an answer (and `prefill`, if part of the answer is given). dspy.ChatAdapter and promptopt.LayoutAdapter "
            "write such data."
        )
    try:
        *prompt, answer = [ChatMessage.model_validate(dict(message)) for message in messages]
    except (ValidationError, ValueError, TypeError) as error:
        raise DataError(
            f"Item {number} of the training data has a message that is not a role (system, user or assistant) with "
            f"one text: {str(error).splitlines()[0]}. Local models are trained on text alone."
        ) from error
    prefill = str(item.get("prefill", ""))
    completion = prefill + answer.content[len(prefill) :].rstrip()
    if answer.role != "assistant" or not answer.content.startswith(prefill) or completion == prefill:
        raise DataError(
            f"Item {number} of the training data ends with a message of {answer.role!r}: {answer.content[:80]!r}. "
            f"Needed is an answer of the assistant with text after its prefill {prefill!r}."
        )
    texts = [f"{message.role}:{message.content}" for message in prompt]
    row_id = _hash("\x00".join([*texts, prefill, completion]))
    return TrainingRow(id=row_id, prompt=tuple(prompt), completion=completion, prefill=prefill, source="dspy")


def _prompt_hash(row: TrainingRow) -> str:
    return _hash("\x00".join(["split", *(f"{message.role}:{message.content}" for message in row.prompt)]))


def _hash(text: str) -> str:
    """Return 16 hex digits."""
    return hashlib.sha256(text.encode("utf-8", errors="surrogatepass")).hexdigest()[:16]
