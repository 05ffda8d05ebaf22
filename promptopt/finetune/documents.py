"""Raw documents -> token rows for continued pre-training: nothing is cut off, every token is learned once.

Knows no model and no torch.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pydantic import ValidationError

from promptopt.errors import DataError, TrainingError
from promptopt.finetune.rows import TokenizedRows, TokenRow
from promptopt.records import DocumentRow

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def read_documents(path: Path) -> list[DocumentRow]:
    """Return the documents of a JSONL file of `DocumentRow`s.

    Raises:
        DataError: the file is missing or empty, or a line is no `DocumentRow`; says which line.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise DataError(
            f"The documents {path} cannot be read: {error.strerror}. Run the distill stage first."
        ) from error
    documents: list[DocumentRow] = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                documents.append(DocumentRow.model_validate_json(line))
            except ValidationError as error:
                raise DataError(
                    f"{path}:{number}: {error.errors()[0]['msg']}. A document is one JSON object with id and text."
                ) from error
    if not documents:
        raise DataError(f"{path} holds no documents; at least 1 is needed.")
    return documents


def check_no_shared_document(train: Sequence[DocumentRow], val: Sequence[DocumentRow]) -> None:
    """Raise TrainingError when a document stands in both, by id or by identical text."""
    ids, texts = {row.id for row in train}, {row.text for row in train}
    shared = [row.id for row in val if row.id in ids or row.text in texts]
    if shared:
        raise TrainingError(
            f"{len(shared)} of {len(val)} validation documents also stand among the {len(train)} that are trained on; "
            f"the first is {shared[0]!r}. Split by content, so that no document is in both."
        )


def chunk_documents(
    documents: Sequence[DocumentRow],
    tokenizer: "PreTrainedTokenizerBase",
    max_length: int,
    end_of_text: str | None = None,
) -> TokenizedRows:
    """Return `documents` as rows of at most `max_length` tokens.

    A document is its tokens and the end-of-text token, after the beginning-of-text token where the tokenizer has one. A
    longer one becomes several rows; each begins with the last token of the row before, which is given there, so that
    every token with a predecessor carries loss exactly once.

    Args:
        end_of_text: the token's text; None = the tokenizer's EOS.

    Raises:
        TrainingError: the end-of-text token is none of the tokenizer's.
    """
    end = _end_id(tokenizer, end_of_text)
    begin = _begin_ids(tokenizer)
    rows: list[TokenRow] = []
    for document in documents:
        # A document that talks about special tokens spells them; it does not contain them.
        encoded: Any = tokenizer(document.text, add_special_tokens=False, split_special_tokens=True, verbose=False)
        ids = [*begin, *encoded["input_ids"], end]
        for number, start in enumerate(range(0, max(len(ids) - 1, 1), max_length - 1)):
            rows.append(TokenRow(f"{document.id}-{number}", tuple(ids[start : start + max_length]), 1))
    return TokenizedRows(tuple(row for row in rows if row.completion_tokens))


def _end_id(tokenizer: "PreTrainedTokenizerBase", end_of_text: str | None) -> int:
    if end_of_text is None:
        eos = cast("int | None", tokenizer.eos_token_id)
        if eos is None:
            raise TrainingError(
                f"The tokenizer of {tokenizer.name_or_path or 'the model'} has no EOS token to end documents with. "
                "Name one as end_of_text."
            )
        return eos
    found = tokenizer.get_vocab().get(end_of_text)
    if found is None:
        raise TrainingError(
            f"end_of_text is {end_of_text!r}, which is no token of {tokenizer.name_or_path or 'the model'}. Its "
            f"special tokens are {sorted(tokenizer.all_special_tokens)}."
        )
    return int(found)


def _begin_ids(tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    """Return the beginning-of-text token, where the tokenizer writes one itself."""
    bos = cast("int | None", tokenizer.bos_token_id)
    encoded: Any = tokenizer("a")
    return [bos] if bos is not None and list(encoded["input_ids"])[:1] == [bos] else []
