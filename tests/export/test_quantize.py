"""quantize_gguf: every quantization loads and stays close; failures name their reason and leave nothing."""

import logging
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer

from promptopt.errors import ExportError
from promptopt.export.convert import convert_to_gguf
from promptopt.export.quantize import FILE_TYPES, quantize_gguf, tensor_types
from promptopt.records import Quantization
from tests.export.llama_runner import Runner
from tests.export.tiny_models import TEXTS, chatml_tokenizer, save_model

ERRORS: dict[Quantization, float] = {
    "f32": 0.01, "f16": 0.0, "q8_0": 0.05, "q6_k": 0.08, "q5_k_m": 0.15, "q4_k_m": 0.25, "q4_0": 0.3,
}  # fmt: skip
"""Highest mean logit error over logit standard deviation, against f16; random weights are hard to round."""


@pytest.fixture(scope="module")
def f16(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose rows are multiples of 256, as k-quants want them."""
    folder = tmp_path_factory.mktemp("f16")
    hf_dir = save_model(
        folder / "hf", "llama", chatml_tokenizer(), hidden_size=256, intermediate_size=512, tie_word_embeddings=True,
        initializer_range=0.05,
    )  # fmt: skip
    return Path(convert_to_gguf(hf_dir, folder / "m-f16.gguf").path)


@pytest.mark.parametrize("quantization", FILE_TYPES)
def test_every_quantization_loads_and_stays_close(quantization: Quantization, f16: Path, tmp_path: Path) -> None:
    made = quantize_gguf(f16, tmp_path / "q.gguf", quantization)
    assert made.quantization == quantization and made.size_bytes == (tmp_path / "q.gguf").stat().st_size
    ids = AutoTokenizer.from_pretrained(f16.parent / "hf").encode(TEXTS[1])
    with Runner(f16) as before, Runner(made.path) as after:
        expected = before.logits(ids)
        error = np.abs(after.logits(ids) - expected).mean() / expected.std()
        assert after.tokenize(TEXTS[1]) == ids
        assert len(after.greedy(ids, 8)) == len(before.greedy(ids, 8)) == 8
    assert error <= ERRORS[quantization]
    assert [file.name for file in tmp_path.iterdir()] == ["q.gguf"]


def test_rows_that_do_not_fit_are_reported(llama_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = Path(convert_to_gguf(llama_dir, tmp_path / "f16.gguf").path)
    with caplog.at_level(logging.WARNING, logger="promptopt.export.quantize"):
        made = quantize_gguf(source, tmp_path / "q4_k_m.gguf", "q4_k_m")
    assert "q4_k_m.gguf: rows that are no multiple of 256" in caplog.text
    assert "14 of 20 tensor(s) required fallback" in caplog.text
    types = tensor_types(Path(made.path))
    assert "Q4_K" not in types and types["F32"] == 5
    with Runner(made.path):
        pass


def test_broken_sources(tmp_path: Path, f16: Path) -> None:
    out = tmp_path / "q.gguf"
    with pytest.raises(ExportError, match="does not exist"):
        quantize_gguf(tmp_path / "none.gguf", out, "q8_0")
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(f16.read_bytes()[:-5000])
    with pytest.raises(ExportError, match=r"could not quantize .*cut\.gguf to q8_0 .*It said: .*complete GGUF"):
        quantize_gguf(cut, out, "q8_0")
    with pytest.raises(ExportError, match=r"q3_k_s.*allowed are f32, f16, q8_0"):
        quantize_gguf(f16, out, "q3_k_s")  # type: ignore[arg-type]
    assert [file.name for file in tmp_path.iterdir()] == ["cut.gguf"]


def test_a_crash_of_llama_cpp_is_an_error_here(f16: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    crash = tmp_path / "crash.py"
    crash.write_text("import os, sys\nprint('GGML_ASSERT failed', file=sys.stderr)\nsys.stderr.flush()\nos.abort()\n")
    monkeypatch.setattr("promptopt.export.quantize_worker.__file__", str(crash))
    with pytest.raises(ExportError, match=r"exit code -6\).*GGML_ASSERT failed"):
        quantize_gguf(f16, tmp_path / "q.gguf", "q8_0")
    assert [file.name for file in tmp_path.iterdir()] == ["crash.py"]
