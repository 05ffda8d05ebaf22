"""The GPU benchmarks run: on a tiny model here, and say why they do nothing where there is no GPU."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


def _run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


@pytest.mark.parametrize("name", ["gpu_qlora.py", "gpu_together.py"])
def test_without_a_gpu_they_say_so(name: str) -> None:
    done = _run(f"benchmarks/{name}")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Skipped: no CUDA device here.")


@pytest.mark.slow
def test_the_same_code_runs_on_a_tiny_model(tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    tiny = ("--device", "cpu", "--tiny", "--folder", str(tmp_path))
    steps = _run("benchmarks/gpu_together.py", *tiny, "--products")
    assert steps.returncode == 0, steps.stderr
    assert "| tiny | 2 | 2 | 32 |" in steps.stdout
    qlora = _run("benchmarks/gpu_qlora.py", *tiny, "--sides", "promptopt,trl")
    assert qlora.returncode == 0, qlora.stderr
    cells = [line.split(" | ") for line in qlora.stdout.splitlines() if line.startswith("| tiny")]
    assert len(cells) == 2 and all(float(line[4]) > 0 for line in cells)
