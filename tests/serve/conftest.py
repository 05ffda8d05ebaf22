"""A tiny model, and a server over it."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from promptopt.lm.llama_cpp.local_chat import LocalChat
from promptopt.lm.llama_cpp.model import LoadOptions
from tests.fixtures_gguf import write_tiny_gguf
from tests.serve.live_server import Served, serving


@pytest.fixture(scope="session")
def gguf_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_gguf(tmp_path_factory.mktemp("served") / "tiny.gguf", n_ctx_train=16384)


@pytest.fixture(scope="session")
def load(gguf_path: Path) -> Iterator[Callable[..., LocalChat]]:
    """Load the tiny model with other options than usual."""
    loaded = []

    def load_with(**options: Any) -> LocalChat:
        # Answers that do not depend on what else runs can be compared with those of a request alone.
        chosen = {"n_ctx": 1024, "n_threads": 1, "parallel": 4, "batch_invariant": True, **options}
        loaded.append(LocalChat(gguf_path, LoadOptions(**chosen)))
        return loaded[-1]

    yield load_with
    for chat in loaded:
        chat.close()


@pytest.fixture(scope="session")
def server(load: Callable[..., LocalChat]) -> Iterator[Served]:
    with serving(load()) as served:
        yield served


@pytest.fixture(scope="session")
def client(server: Served) -> openai.OpenAI:
    return server.client()


@pytest.fixture(scope="session")
def http(server: Served) -> httpx.Client:
    return server.http()
