"""The doctor: every check gives a finding, and no finding stops the others."""

import io
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from promptopt.cli import doctor, machine
from promptopt.cli.doctor import Check, State
from promptopt.errors import MissingExtraError
from promptopt.extras import EXTRA_OF_MODULE


def test_machine_has_a_processor_memory_and_a_disk(tmp_path: Path) -> None:
    assert machine.processor().name
    assert machine.processor().n_cpus >= 1
    memory = machine.memory()
    assert 0 <= memory.available_bytes <= memory.total_bytes
    assert memory.total_bytes > 0
    assert machine.free_disk_bytes(tmp_path / "not" / "there" / "yet") == pytest.approx(
        machine.free_disk_bytes(tmp_path), rel=0.2
    )


def test_no_driver_means_no_gpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert machine.nvidia_gpus() == []


def test_driver_lists_gpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'NVIDIA H200, 143771 MiB, 570.1'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert machine.nvidia_gpus() == ["NVIDIA H200, 143771 MiB, 570.1"]


def test_gpu_that_torch_cannot_use_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "nvidia_gpus", lambda: ["NVIDIA H200, 143771 MiB, 570.1"])
    monkeypatch.setattr(doctor, "_cuda_devices", list)
    check = doctor.check_gpu()
    assert (check.state, check.found) == (State.WARN, "NVIDIA H200, 143771 MiB, 570.1")
    assert "CUDA build of torch" in check.advice


def test_no_gpu_is_fine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "nvidia_gpus", list)
    monkeypatch.setattr(doctor, "_cuda_devices", list)
    assert doctor.check_gpu().state is State.OK


@pytest.mark.parametrize("extra", sorted(set(EXTRA_OF_MODULE.values())))
def test_missing_extra_shows_its_install_line(monkeypatch: pytest.MonkeyPatch, extra: str) -> None:
    monkeypatch.setattr(doctor, "_installed", lambda module: None)
    check = doctor.check_extra(extra)
    assert check.state is State.MISSING
    assert check.advice == f"pip install 'promptopt[{extra}]'"


def test_extra_with_one_package_missing_shows_both(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_installed", lambda module: None if module == "gguf" else "1.0")
    assert doctor.check_extra("export").found == "safetensors 1.0; not installed: gguf"


@pytest.mark.parametrize("extra", sorted(set(EXTRA_OF_MODULE.values())))
def test_installed_extra_shows_versions(extra: str) -> None:
    check = doctor.check_extra(extra)
    assert check.state is State.OK
    assert all(module in check.found for module, owner in EXTRA_OF_MODULE.items() if owner == extra)


def test_low_memory_and_a_full_disk_are_warnings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "memory", lambda: machine.Memory(8 * doctor.GIB, doctor.GIB))
    monkeypatch.setattr(machine, "free_disk_bytes", lambda folder: doctor.GIB)
    assert [doctor.check_memory().state, doctor.check_disk().state] == [State.WARN, State.WARN]


def test_llama_cpp_tells_how_it_was_built() -> None:
    check = doctor.check_llama_cpp()
    assert "llama-cpp-python" in check.found
    assert "GPU offload" in check.found


def test_llama_cpp_that_dies_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_ASK_LLAMA_CPP", "import os, signal; os.kill(os.getpid(), signal.SIGILL)")
    check = doctor.check_llama_cpp()
    assert check.state is State.WARN
    assert "signal 4" in check.found
    assert "pip install" in check.advice


def test_a_check_that_breaks_is_a_finding() -> None:
    def breaks() -> Check:
        raise RuntimeError("the sky fell")

    def lacks() -> Check:
        raise MissingExtraError("torch is not installed. Install it with: pip install 'promptopt[finetune]'")

    assert doctor.survive("sky", breaks).state is State.WARN
    assert "the sky fell" in doctor.survive("sky", breaks).found
    assert doctor.survive("weights", lacks).state is State.MISSING
    assert "promptopt[finetune]" in doctor.survive("weights", lacks).advice


def test_table_shows_brackets_as_they_are() -> None:
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(doctor.as_table([Check("x", State.MISSING, "[bold]", "pip install 'promptopt[export]'")]))
    shown = console.export_text()
    assert "[bold]" in shown
    assert "promptopt[export]" in shown


@pytest.mark.slow
def test_doctor_examines_this_machine(repository: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "promptopt", "doctor"],
        cwd=repository,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for name in ("Python", "processor", "memory", "disk", "GPU", "extra finetune", "quantized", "4-bit gradients"):
        assert name in done.stdout
    assert "the check failed" not in " ".join(done.stdout.split())
