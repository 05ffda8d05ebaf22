"""`promptopt doctor`: what this machine can do, what is missing, and the line that installs it.

A doctor outlives its findings: whatever breaks during a check becomes that check's finding, and the exit code is 0.
"""

import json
import platform
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from promptopt.cli import machine
from promptopt.errors import ExportError, MissingExtraError
from promptopt.extras import EXTRA_OF_MODULE, install_line

GIB = 1 << 30
LOW_MEMORY_BYTES = 2 * GIB
LOW_DISK_BYTES = 5 * GIB
CHILD_TIMEOUT_S = 60.0
BUILD_LINE = "pip install --force-reinstall --no-deps --no-cache-dir llama-cpp-python"
DISTRIBUTIONS = {"llama_cpp": "llama-cpp-python", "docx": "python-docx", "MeCab": "mecab-python3"}
"""Module -> the name it is installed under, where the two differ."""


class State(StrEnum):
    """What a finding means for the user."""

    OK = "ok"
    WARN = "warn"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the table: what was looked at, what was found, and what to do about it (empty: nothing)."""

    name: str
    state: State
    found: str
    advice: str = ""


def print_doctor() -> int:
    """Print the table of all checks and return 0."""
    console = Console()
    with console.status("looking at this machine (the first time, the starter model is made into a GGUF)"):
        checks = collect()
    console.print(as_table(checks))
    troubles = sum(check.state is not State.OK for check in checks)
    console.print("Everything is there." if not troubles else f"{troubles} finding(s); what to do stands beside each.")
    return 0


def as_table(checks: list[Check]) -> Table:
    """Lay the checks out for the terminal."""
    colours = {State.OK: "green", State.WARN: "yellow", State.MISSING: "red"}
    table = Table("check", "state", "found", "what to do", show_lines=True)
    for check in checks:
        state = f"[{colours[check.state]}]{check.state}[/]"
        table.add_row(escape(check.name), state, escape(check.found), escape(check.advice))
    return table


def collect() -> list[Check]:
    """Run every check, the quick ones first. Takes seconds: it decodes with a small model and trains a small layer."""
    plans: list[tuple[str, Callable[[], Check]]] = [
        ("Python", check_python),
        ("processor", check_processor),
        ("memory", check_memory),
        ("disk", check_disk),
        ("GPU", check_gpu),
        *(
            (f"extra {extra}", lambda extra=extra: check_extra(extra))
            for extra in dict.fromkeys(EXTRA_OF_MODULE.values())
        ),
        ("llama.cpp build", check_llama_cpp),
        ("llama.cpp converter", check_converter),
        ("quantized decoding", check_quantized_decoding),
        ("4-bit gradients", check_gradients),
    ]
    return [survive(name, check) for name, check in plans]


def survive(name: str, check: Callable[[], Check]) -> Check:
    """Run one check; whatever it raises is its finding."""
    try:
        return check()
    except MissingExtraError as error:
        return Check(name, State.MISSING, "not checked", str(error))
    except Exception as error:
        return Check(name, State.WARN, f"the check failed: {type(error).__name__}: {error}", "see the message")


def check_python() -> Check:
    """Report the interpreter; pip has made sure that it is new enough."""
    return Check("Python", State.OK, f"{platform.python_version()} on {platform.system()} {platform.machine()}")


def check_processor() -> Check:
    """Report the processor and the instruction sets that kernels are chosen by."""
    found = machine.processor()
    text = (
        f"{found.name}, {found.n_cpus} CPU(s) for this process, {' '.join(found.flags) or 'instruction sets unknown'}"
    )
    if found.flags and platform.machine() in ("x86_64", "AMD64") and "avx2" not in found.flags:
        return Check("processor", State.WARN, text, "without AVX2 llama.cpp is several times slower")
    return Check("processor", State.OK, text)


def check_memory() -> Check:
    """Report main memory."""
    found = machine.memory()
    text = f"{found.total_bytes / GIB:.1f} GiB"
    if not found.available_bytes:
        return Check("memory", State.OK, text)
    text += f", {found.available_bytes / GIB:.1f} GiB available"
    if found.available_bytes < LOW_MEMORY_BYTES:
        return Check("memory", State.WARN, text, "close other programs: fine-tuning needs 2 GiB and more")
    return Check("memory", State.OK, text)


def check_disk() -> Check:
    """Report the free space where runs are written."""
    free = machine.free_disk_bytes(Path.cwd())
    text = f"{free / GIB:.1f} GiB free in the working directory"
    if free < LOW_DISK_BYTES:
        return Check("disk", State.WARN, text, "free some space, or set run_dir to another disk")
    return Check("disk", State.OK, text)


def check_gpu() -> Check:
    """Report NVIDIA cards as the driver sees them, and whether the installed torch can use them."""
    gpus = machine.nvidia_gpus()
    usable = _cuda_devices()
    if not gpus and not usable:
        return Check("GPU", State.OK, "none: everything runs on the CPU, slower")
    text = "; ".join(gpus or usable or [])
    if usable is not None and not usable:
        advice = "the installed torch cannot use it: install a CUDA build of torch (see README, Installing)"
        return Check("GPU", State.WARN, text, advice)
    return Check("GPU", State.OK, text)


def _cuda_devices() -> list[str] | None:
    """Return the names of the cards torch can use; None without torch."""
    if _installed("torch") is None:
        return None
    import torch

    return [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]


def check_extra(extra: str) -> Check:
    """Report the versions of an extra's packages, or the line that installs them."""
    modules = [module for module, owner in EXTRA_OF_MODULE.items() if owner == extra]
    versions = {module: _installed(module) for module in modules}
    text = ", ".join(f"{module} {found}" for module, found in versions.items() if found)
    missing = [module for module, found in versions.items() if not found]
    if missing:
        text = f"{text}; not installed: {', '.join(missing)}".removeprefix("; ")
        return Check(f"extra {extra}", State.MISSING, text, install_line(missing[0]))
    return Check(f"extra {extra}", State.OK, text)


def check_llama_cpp() -> Check:
    """Report how llama.cpp was built. Asked in a child process: a build for another CPU dies when it is loaded."""
    if _installed("llama_cpp") is None:
        return Check("llama.cpp build", State.MISSING, "llama-cpp-python is not installed", install_line("llama_cpp"))
    done = subprocess.run(
        [sys.executable, "-c", _ASK_LLAMA_CPP], capture_output=True, text=True, timeout=CHILD_TIMEOUT_S, check=False
    )
    if done.returncode:
        died = f"signal {-done.returncode}" if done.returncode < 0 else done.stderr.strip()[-200:]
        advice = f"build it for this CPU: {BUILD_LINE}"
        return Check("llama.cpp build", State.WARN, f"it does not load: {died}", advice)
    told = json.loads(done.stdout.splitlines()[-1])
    text = f"llama-cpp-python {told['version']}; GPU offload {'yes' if told['gpu'] else 'no'}; {told['system']}"
    if machine.nvidia_gpus() and not told["gpu"]:
        advice = f"for the GPU: CMAKE_ARGS=-DGGML_CUDA=on {BUILD_LINE}"
        return Check("llama.cpp build", State.WARN, text, advice)
    return Check("llama.cpp build", State.OK, text)


_ASK_LLAMA_CPP = """
import json, llama_cpp
system = " ".join(llama_cpp.llama_print_system_info().decode("utf-8", "replace").split())
gpu = bool(llama_cpp.llama_supports_gpu_offload())
print(json.dumps({"version": llama_cpp.__version__, "gpu": gpu, "system": system}))
"""


def check_converter() -> Check:
    """Report whether llama.cpp's converter is at hand, which exports of most networks need."""
    from promptopt.export.converter_source import FETCH_LINE, VERSION, find_converter

    try:
        folder = find_converter()
    except ExportError as error:
        return Check("llama.cpp converter", State.MISSING, str(error), f"{FETCH_LINE} (Llama and Qwen2 need none)")
    return Check("llama.cpp converter", State.OK, f"llama-cpp-python {VERSION}'s, in {folder}")


def check_quantized_decoding() -> Check:
    """Report whether llama.cpp's fastest CPU path survives a quantized model here; promptopt avoids it if not."""
    from promptopt.lm.gguf_info import read_gguf
    from promptopt.lm.llama_cpp.cpu_probe import choose_cpu_path
    from promptopt.lm.llama_cpp.native import library
    from promptopt.pipeline.models import starter_gguf

    library_version = str(library().__version__)
    path = choose_cpu_path(read_gguf(starter_gguf("q8_0")), library_version)
    if path.use_extra_bufts:
        return Check("quantized decoding", State.OK, f"q8_0, fast path: {path.reason}")
    text = f"q8_0, safe path: {path.reason}"
    advice = "nothing: promptopt leaves the fast path out by itself. A llama.cpp built without AMX may be faster"
    return Check("quantized decoding", State.WARN, text, advice)


def check_gradients() -> Check:
    """Report whether 4-bit training computes right gradients here (see docs: AVX512-BF16)."""
    for module in ("torch", "bitsandbytes"):
        if _installed(module) is None:
            return Check("4-bit gradients", State.MISSING, f"{module} is not installed", install_line(module))
    from promptopt.finetune.selftest import run_selftest

    result = run_selftest()
    if result.ok:
        return Check("4-bit gradients", State.OK, result.detail)
    return Check("4-bit gradients", State.WARN, result.detail, "train with `base_quantization: none` on this machine")


def _installed(module: str) -> str | None:
    """Return the version of the package that brings `module`, without importing it; None if it is not installed."""
    try:
        return version(DISTRIBUTIONS.get(module, module))
    except PackageNotFoundError:
        return None
