"""What this machine is: processor, memory, disk, graphics cards. Knows nothing of promptopt or of Python packages."""

import os
import platform
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

NVIDIA_SMI_TIMEOUT_S = 10.0
FLAGS_THAT_MATTER = (
    "avx2",
    "fma",
    "f16c",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "amx_int8",
    "amx_bf16",
    "asimddp",
    "i8mm",
)
"""Instruction sets that llama.cpp or bitsandbytes choose their kernels by, as /proc/cpuinfo spells them."""


@dataclass(frozen=True, slots=True)
class Processor:
    """The processor's name, how many logical CPUs this process may use, and which of FLAGS_THAT_MATTER it shows."""

    name: str
    n_cpus: int
    flags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Memory:
    """Main memory; 0 where the system does not say."""

    total_bytes: int
    available_bytes: int


def processor() -> Processor:
    """Describe the processor."""
    n_cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return Processor(_sysctl("machdep.cpu.brand_string") or platform.processor() or platform.machine(), n_cpus, ())
    fields = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    shown = set(fields.get("flags", fields.get("Features", "")).split())
    name = fields.get("model name") or platform.processor() or platform.machine()
    return Processor(name, n_cpus, tuple(flag for flag in FLAGS_THAT_MATTER if flag in shown))


def memory() -> Memory:
    """Measure main memory, a container's limit counted in."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return Memory(int(_sysctl("hw.memsize") or 0), 0)
    kib = {name: int(value.split()[0]) for name, _, value in (line.partition(":") for line in lines)}
    total, available = kib["MemTotal"] << 10, kib.get("MemAvailable", kib["MemFree"]) << 10
    limit = _container_bytes("memory.max")
    if limit is None or limit >= total:
        return Memory(total, available)
    return Memory(limit, max(0, min(available, limit - (_container_bytes("memory.current") or 0))))


def free_disk_bytes(folder: Path) -> int:
    """Return the free space where `folder` is, or will be."""
    existing = next(place for place in (folder, *folder.absolute().parents) if place.is_dir())
    return shutil.disk_usage(existing).free


def nvidia_gpus() -> list[str]:
    """Return "name, memory, driver" of each NVIDIA card that the driver shows; none without a driver."""
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=NVIDIA_SMI_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in done.stdout.splitlines() if line.strip()]


def _container_bytes(name: str) -> int | None:
    try:
        text = Path("/sys/fs/cgroup", name).read_text(encoding="ascii").strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _sysctl(name: str) -> str:
    """Ask macOS."""
    try:
        done = subprocess.run(["sysctl", "-n", name], capture_output=True, text=True, timeout=5.0, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
