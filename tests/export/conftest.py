"""Models made once per test session."""

from pathlib import Path

import pytest

from tests.export.tiny_models import chatml_tokenizer, save_model


@pytest.fixture(scope="session")
def llama_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tied Llama with grouped queries, ChatML, no bos: the shape of the starter model."""
    out = tmp_path_factory.mktemp("models") / "llama"
    return save_model(out, "llama", chatml_tokenizer(), tie_word_embeddings=True)


@pytest.fixture(scope="session")
def qwen2_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen2 with untied embeddings and biases."""
    return save_model(tmp_path_factory.mktemp("models") / "qwen2", "qwen2", chatml_tokenizer())
