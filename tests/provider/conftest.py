"""Shared by the provider tests: a tiny random Llama that is trained for real, and its GGUF."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.finetune.tiny_models import make_base

pytest.importorskip("trl")


@pytest.fixture(scope="session", autouse=True)
def _few_threads() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def hf_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("tiny") / "tiny-llama")


@pytest.fixture(scope="session")
def gguf(hf_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from promptopt.export.convert import convert_to_gguf

    out = tmp_path_factory.mktemp("gguf") / "tiny-f16.gguf"
    convert_to_gguf(hf_dir, out, outtype="f16")
    return out
