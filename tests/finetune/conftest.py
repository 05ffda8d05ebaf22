"""Shared by the fine-tuning tests: one tiny base model and one set of rows per session."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.finetune.tiny_models import make_base, make_rows, write_rows

pytest.importorskip("torch")
pytest.importorskip("trl")


@pytest.fixture(scope="session", autouse=True)
def _few_threads() -> Iterator[None]:
    """Tiny matrices on many threads wait more than they compute."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def base_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random Llama."""
    return make_base(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="session")
def train_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 rows to train on."""
    return write_rows(tmp_path_factory.mktemp("rows") / "train.jsonl", make_rows(48, 1, words=8))


@pytest.fixture(scope="session")
def val_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 rows to measure on."""
    return write_rows(tmp_path_factory.mktemp("rows") / "val.jsonl", make_rows(12, 2, words=8))
