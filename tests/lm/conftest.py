"""One tiny model per session, and a cache folder of its own: tests never touch the user's."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from promptopt.lm.llama_cpp.facade import LlamaCpp
from tests.fixtures_gguf import write_tiny_gguf


@pytest.fixture(scope="session", autouse=True)
def own_cache_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("xdg")))
        yield


@pytest.fixture(scope="session")
def gguf_path(tmp_path_factory: pytest.TempPathFactory, own_cache_home: None) -> Path:
    return write_tiny_gguf(tmp_path_factory.mktemp("model") / "tiny.gguf")


@pytest.fixture(scope="session")
def lm(gguf_path: Path) -> Iterator[LlamaCpp]:
    model = LlamaCpp(gguf_path, cache_dir=None, n_threads=1, max_tokens=24)
    yield model
    model.close()
