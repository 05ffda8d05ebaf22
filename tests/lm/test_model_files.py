"""GGUF headers, bad files, the CPU probe, fingerprints, and the list of models."""

import ctypes
import json
import struct
from pathlib import Path
from typing import Any

import pytest

from promptopt.errors import ModelError
from promptopt.lm.fingerprint import file_sha256
from promptopt.lm.gguf_info import read_gguf
from promptopt.lm.llama_cpp import cpu_probe
from promptopt.lm.llama_cpp.facade import LlamaCpp
from promptopt.lm.models import find_models
from promptopt.user_cache import user_cache_dir
from tests.fixtures_gguf import CHATML, tiny_tokenizer, write_tiny_gguf


def test_header(gguf_path: Path) -> None:
    info = read_gguf(gguf_path)
    assert (info.architecture, info.quantization, info.n_ctx_train) == ("llama", "f32", 512)
    assert info.size_bytes == gguf_path.stat().st_size
    assert info.chat_template == CHATML
    assert info.has_chat_template
    assert info.metadata["general.name"] == "tiny"
    assert "tokenizer.ggml.tokens" not in info.metadata
    width, n_vocab = 64, tiny_tokenizer().get_vocab_size()
    assert info.n_params == 2 * n_vocab * width + 2 * (2 * 64 * 64 + 2 * 32 * 64 + 3 * 64 * 128) + 5 * 64
    assert info.tensor_types == {"F32": 21}


@pytest.mark.parametrize("file_type", ["f16", "q8_0"])
def test_types(tmp_path: Path, file_type: str) -> None:
    info = read_gguf(write_tiny_gguf(tmp_path / "m.gguf", file_type=file_type, template=None))
    assert info.quantization == file_type
    assert not info.has_chat_template
    assert info.tensor_types[file_type.upper()] == 16


def test_every_truncation_is_found_before_llama_cpp_sees_it(gguf_path: Path, tmp_path: Path) -> None:
    whole = gguf_path.read_bytes()
    cut = tmp_path / "cut.gguf"
    for length in [*range(1, 3000, 37), *range(3000, len(whole), 9973), len(whole) - 1]:
        cut.write_bytes(whole[:length])
        with pytest.raises(ModelError, match=r"cut\.gguf"):
            read_gguf(cut)
    cut.write_bytes(whole[:-1])
    with pytest.raises(ModelError, match=r"is incomplete: \d+ bytes are there, its tensors need \d+"):
        LlamaCpp(cut)


def test_garbage_in_the_header_is_an_error(gguf_path: Path, tmp_path: Path) -> None:
    whole = bytearray(gguf_path.read_bytes())
    bad = tmp_path / "bad.gguf"
    for at in range(8, 400, 3):
        damaged = bytearray(whole)
        damaged[at] ^= 0xFF
        bad.write_bytes(damaged)
        try:
            read_gguf(bad)
        except ModelError:
            continue


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not a GGUF file"),
        (b"<html>error</html>", r"starts with b'<htm'"),
        (b"GGUF" + struct.pack("<I", 1) + b"\0" * 99, "version 1"),
        (b"GGUF" + struct.pack(">I", 3) + b"\0" * 99, "little endian"),
        (b"GGUF" + struct.pack("<IQQ", 3, 2**40, 2**40) + b"\0" * 99, "ends in the middle"),
    ],
)
def test_not_a_gguf(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=message):
        LlamaCpp(path)


def test_missing_folder_template_architecture(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no model file .*gone\.gguf"):
        LlamaCpp(tmp_path / "gone.gguf")
    write_tiny_gguf(tmp_path / "m.gguf", template=None)
    with pytest.raises(ModelError, match=r"is a folder.*m\.gguf"):
        LlamaCpp(tmp_path)
    with pytest.raises(ModelError, match="has no chat template"):
        LlamaCpp(tmp_path / "m.gguf")
    strange = write_tiny_gguf(tmp_path / "strange.gguf", architecture="notanarchitecture")
    with pytest.raises(ModelError, match="unknown model architecture: 'notanarchitecture'"):
        LlamaCpp(strange)


def test_a_log_that_other_code_took_is_taken_back(gguf_path: Path, tmp_path: Path) -> None:
    import llama_cpp

    lib: Any = llama_cpp
    LlamaCpp(gguf_path, cache_dir=None, n_threads=1).close()
    others: list[bytes] = []
    callback = lib.llama_log_callback(lambda level, text, data: others.append(text))
    lib.llama_log_set(callback, ctypes.c_void_p(0))
    strange = write_tiny_gguf(tmp_path / "strange.gguf", architecture="notanarchitecture")
    with pytest.raises(ModelError, match="unknown model architecture: 'notanarchitecture'"):
        LlamaCpp(strange)
    assert others == []


def test_llama_cpp_is_silent(gguf_path: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    LlamaCpp(gguf_path, cache_dir=None, n_threads=1).complete_messages([{"role": "user", "content": "x"}], max_tokens=2)
    with pytest.raises(ModelError):
        LlamaCpp(write_tiny_gguf(tmp_path / "s.gguf", architecture="strange"))
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""


def test_probe_is_remembered_and_crashes_are_survived(
    gguf_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    info = read_gguf(gguf_path)
    monkeypatch.setattr(cpu_probe, "_CHILD", "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    choice = cpu_probe.choose_cpu_path(info, "1")
    assert not choice.use_extra_bufts
    assert "signal 11" in choice.reason
    monkeypatch.setattr(cpu_probe, "_CHILD", "raise SystemExit('no such module')")
    assert cpu_probe.choose_cpu_path(info, "1") == choice
    # Not knowing is answered safely, and asked again next time.
    assert not cpu_probe.choose_cpu_path(info, "2").use_extra_bufts
    monkeypatch.setattr(cpu_probe, "_CHILD", "import sys; print(sys.argv[3])")
    assert cpu_probe.choose_cpu_path(info, "2").use_extra_bufts


def test_both_cpu_paths_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_tiny_gguf(tmp_path / "q.gguf", file_type="q8_0")
    for fast in (True, False):
        chosen = cpu_probe.CpuPath(fast, "test")
        monkeypatch.setattr("promptopt.lm.llama_cpp.model.choose_cpu_path", lambda *_, chosen=chosen: chosen)
        if fast and "amx" in Path("/proc/cpuinfo").read_text():
            continue
        lm = LlamaCpp(path, cache_dir=None, n_threads=1)
        assert lm.complete_messages([{"role": "user", "content": "x"}], max_tokens=5).completion_tokens
        lm.close()


def test_fingerprint_follows_the_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    first = file_sha256(path)
    assert first == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert file_sha256(path) == first
    path.write_bytes(b"abcd")
    assert file_sha256(path) != first


def test_cache_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert user_cache_dir() == Path("~/.cache/promptopt").expanduser()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert user_cache_dir() == tmp_path / "promptopt"


def write_hf_folder(folder: Path) -> None:
    folder.mkdir(parents=True)
    config = {"architectures": ["LlamaForCausalLM"], "dtype": "bfloat16", "max_position_embeddings": 2048}
    (folder / "config.json").write_text(json.dumps(config))
    header = json.dumps({"w": {"dtype": "BF16", "shape": [3, 4], "data_offsets": [0, 24]}}).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 24)
    (folder / "tokenizer_config.json").write_text('{"chat_template": "x"}')


def test_find_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gguf_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PROMPTOPT_MODELS", str(tmp_path / "named"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    write_hf_folder(tmp_path / "named" / "good")
    write_hf_folder(tmp_path / "named" / "short")
    cut = tmp_path / "named" / "short" / "model.safetensors"
    cut.write_bytes(cut.read_bytes()[:-1])
    write_hf_folder(tmp_path / "named" / "broken")
    (tmp_path / "named" / "broken" / "config.json").write_text("{")
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "tiny.gguf").write_bytes(gguf_path.read_bytes())
    (tmp_path / "models" / "page.gguf").write_bytes(b"<html>")
    blobs = tmp_path / "hub" / "models--a--b" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / "0123").write_bytes(gguf_path.read_bytes())
    snapshot = tmp_path / "hub" / "models--a--b" / "snapshots" / "1"
    snapshot.mkdir(parents=True)
    (snapshot / "b.gguf").symlink_to(blobs / "0123")
    (snapshot / "gone.gguf").symlink_to(blobs / "gone")
    found = {model.path.name: model for model in find_models([tmp_path / "nowhere", gguf_path])}
    assert set(found) == {"good", "short", "broken", "tiny.gguf", "page.gguf", "b.gguf", "gone.gguf"}
    good = found["good"]
    assert (good.architecture, good.precision, good.n_ctx_train, good.n_params) == (
        "LlamaForCausalLM", "bfloat16", 2048, 12,
    )  # fmt: skip
    assert good.has_chat_template
    assert good.problem == ""
    assert "incomplete" in found["short"].problem
    assert "not JSON" in found["broken"].problem
    assert "not a GGUF" in found["page.gguf"].problem
    assert "no model file" in found["gone.gguf"].problem
    assert found["b.gguf"].n_params == found["tiny.gguf"].n_params > 0
