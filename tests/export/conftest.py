"""Models made once per test session."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from promptopt.export.convert import convert_to_gguf
from tests.export.tiny_models import NETWORKS, chatml_tokenizer, save_model


@pytest.fixture(scope="session")
def llama_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tied Llama with grouped queries, ChatML, no bos: the shape of the starter model."""
    out = tmp_path_factory.mktemp("models") / "llama"
    return save_model(out, "llama", chatml_tokenizer(), tie_word_embeddings=True)


@pytest.fixture(scope="session")
def qwen2_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen2 with untied embeddings and biases."""
    return save_model(tmp_path_factory.mktemp("models") / "qwen2", "qwen2", chatml_tokenizer())


@dataclass(frozen=True)
class Made:
    """A tiny model of a network, and its GGUF in f32.

    Attributes:
        own_ends: ids that end an answer beside eos.
    """

    hf_dir: Path
    gguf: Path
    tokenizer: PreTrainedTokenizerBase
    own_ends: frozenset[int]


Exported = Callable[[str], Made]


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Export a network of `NETWORKS` at its first use; llama.cpp's converter takes seconds."""

    @functools.cache
    def make(name: str) -> Made:
        kind = NETWORKS[name]
        folder = tmp_path_factory.mktemp("exported")
        hf_dir = save_model(folder / "hf", kind.network, kind.tokenizer(), **kind.changes)
        gguf = convert_to_gguf(hf_dir, folder / "m.gguf", outtype="f32")
        tokenizer = AutoTokenizer.from_pretrained(hf_dir)
        own = frozenset(tokenizer.convert_tokens_to_ids(text) for text in kind.own_ends)
        return Made(hf_dir, Path(gguf.path), tokenizer, own)

    return make
