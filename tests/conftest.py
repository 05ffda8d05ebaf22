"""Makes every test offline, seeded and without traces: no network, no writing into the user's caches."""

import os
import shutil
import socket
import tempfile
from pathlib import Path
from typing import Any

import pytest

# Before anything is imported that reads them.
_SCRATCH = tempfile.mkdtemp(prefix="promptopt-tests-")
_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "promptopt"
# llama.cpp's converter is the one thing taken from the user's cache: `make install` fetched it, tests are offline.
(Path(_SCRATCH) / "cache" / "promptopt").mkdir(parents=True)
(Path(_SCRATCH) / "cache" / "promptopt" / "converter").symlink_to(_CACHE / "converter")
os.environ.update(
    XDG_CACHE_HOME=f"{_SCRATCH}/cache",
    DSPY_CACHEDIR=f"{_SCRATCH}/dspy",
    HF_HOME=f"{_SCRATCH}/huggingface",
    HF_HUB_OFFLINE="1",
    TRANSFORMERS_OFFLINE="1",
    HF_DATASETS_OFFLINE="1",
    LITELLM_LOCAL_MODEL_COST_MAP="True",
    TOKENIZERS_PARALLELISM="false",
)

from hypothesis import settings  # noqa: E402  (it makes a folder in the working directory unless told otherwise)

# The same examples everywhere: a red test is red again on the next machine. A busy machine is no failure.
settings.register_profile("promptopt", deadline=None, derandomize=True, database=None)
settings.load_profile("promptopt")

REPOSITORY = Path(__file__).resolve().parent.parent


def pytest_unconfigure() -> None:
    shutil.rmtree(_SCRATCH, ignore_errors=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip `gpu` tests, with a message, where torch sees no CUDA device."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked:
        return
    import torch

    if not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device; torch sees none here"))


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse connections that leave this machine: a default test is an offline test."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise OSError(f"A test tried to reach {address!r}; tests are offline.")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture
def repository() -> Path:
    """The folder that holds pyproject.toml."""
    return REPOSITORY
