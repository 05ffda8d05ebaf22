"""Documents become rows without losing a token, and packed ones do not see each other."""

from pathlib import Path
from typing import Any

import pytest

from promptopt.config.methods import Causal
from promptopt.config.recipe import TrainingRecipe
from promptopt.errors import DataError, TrainingError
from promptopt.finetune.base_model import load_base, quiet_libraries
from promptopt.finetune.batches import padded
from promptopt.finetune.documents import check_no_shared_document, chunk_documents, read_documents
from promptopt.finetune.train import finetune
from promptopt.finetune.trainer import completion_log_probs
from promptopt.records import DocumentRow
from tests.finetune.tiny_models import make_documents, make_tokenizer, write_rows


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return make_tokenizer()


@pytest.mark.parametrize("max_length", [16, 50, 1000])
def test_no_token_is_lost_and_each_is_learned_once(tokenizer: Any, max_length: int) -> None:
    for document in make_documents(4):
        rows = chunk_documents([document], tokenizer, max_length).rows
        assert all(2 <= len(row.input_ids) <= max_length for row in rows)
        learned = [rows[0].input_ids[0], *(token for row in rows for token in row.labels[1:])]
        assert all(row.labels[0] == -100 for row in rows)
        assert learned == [*tokenizer(document.text)["input_ids"], tokenizer.eos_token_id]


def test_documents_end_with_the_end_of_text_that_was_named(tokenizer: Any) -> None:
    document = DocumentRow(id="d", text="the car")
    (row,) = chunk_documents([document], tokenizer, 64, "<|endoftext|>").rows
    assert row.input_ids[-1] == tokenizer.pad_token_id != tokenizer.eos_token_id
    with pytest.raises(TrainingError, match=r"'<end>', which is no token .*<\|im_end\|>"):
        chunk_documents([document], tokenizer, 64, "<end>")
    other = make_tokenizer()
    other.eos_token = None
    with pytest.raises(TrainingError, match="no EOS token to end documents"):
        chunk_documents([document], other, 64)


def test_a_document_cannot_write_special_tokens(tokenizer: Any) -> None:
    (row,) = chunk_documents([DocumentRow(id="d", text="say <|im_end|> now")], tokenizer, 64).rows
    assert row.input_ids.count(tokenizer.eos_token_id) == 1
    assert tokenizer.decode(list(row.input_ids[:-1])) == "say <|im_end|> now"


def test_wrong_files_and_shared_documents_are_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text('{"id": "a", "text": "b"}\n{"id": "a"}\n')
    with pytest.raises(DataError, match=r"bad\.jsonl:2"):
        read_documents(tmp_path / "bad.jsonl")
    with pytest.raises(DataError, match="cannot be read"):
        read_documents(tmp_path / "none.jsonl")
    documents = make_documents(3)
    with pytest.raises(TrainingError, match="1 of 1 validation documents"):
        check_no_shared_document(documents, [documents[0].model_copy(update={"id": "other"})])


def test_packed_documents_do_not_see_each_other(base_dir: Path, tmp_path: Path) -> None:
    import torch

    documents = make_documents(12)
    train, val = write_rows(tmp_path / "t.jsonl", documents[:10]), write_rows(tmp_path / "v.jsonl", documents[10:])
    recipe = TrainingRecipe(rank=4, epochs=1, batch_size=64, max_length=250, base_quantization="none")
    result = finetune(train, val, base_dir, recipe, tmp_path / "out", 0, method=Causal())
    assert (result.steps, result.method, result.train_rows) == (1, "causal", 10)
    with quiet_libraries():
        base = load_base(base_dir, "none", device="cpu")
    rows = chunk_documents(documents[:10], base.tokenizer, 250).rows
    with torch.no_grad():
        log_probs, count = completion_log_probs(base.model, padded(rows, 0))
    # One by one, each from its own beginning: the loss of the first step, before any update.
    first = next(point.loss for point in result.history if point.loss is not None)
    assert first == pytest.approx(-float(log_probs.mean()), abs=2e-4)
    assert result.trained_tokens == count
