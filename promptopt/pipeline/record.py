"""The run record: what a run was made of, so that it can be made again."""

import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version

from promptopt.config.redact import without_passwords

PACKAGES = (
    "promptopt", "dspy", "optuna", "llama-cpp-python", "torch", "transformers", "peft", "trl", "bitsandbytes", "gguf",
)  # fmt: skip


def package_versions() -> dict[str, str]:
    """Return the installed versions of the packages that decide what a run does, Python's included."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def git_revision() -> str:
    """Return the git revision of the working directory, with `+` after it where files differ; "" without git."""
    try:
        head = subprocess.run(
            ["git", "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()
        status = subprocess.run(
            ["git", "status", "--porcelain", "--untracked-files=no"],
            capture_output=True, text=True, check=True, timeout=10,
        ).stdout  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return ""
    return head + ("+" if status.strip() else "")


def hardware() -> str:
    """Return processor, cores and system in one line."""
    import os

    return f"{_cpu_model()}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}"


def command_line() -> list[str]:
    """Return the arguments the process was started with, the program's folder and passwords left out."""
    return [sys.argv[0].rsplit("/", 1)[-1], *map(without_passwords, sys.argv[1:])]


def _cpu_model() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or "unknown processor"
