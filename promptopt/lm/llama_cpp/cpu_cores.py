"""How many CPU cores this process may really use. Knows nothing about models."""

import os
from pathlib import Path


def physical_cores() -> int:
    """Return the physical cores this process may run on: hyperthreads, affinity and a container's quota counted in."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    cores = {_core_of(cpu) for cpu in allowed}
    return max(1, min(len(cores), _quota()))


def _core_of(cpu: int) -> str:
    """Name the core of one logical CPU by its siblings; where Linux does not say, each is taken as its own core."""
    siblings = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
    try:
        return siblings.read_text(encoding="ascii").strip()
    except OSError:
        return str(cpu)


def _quota() -> int:
    """Return the CPUs a cgroup (v2) grants, rounded up; a large number without a limit."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        return 1 << 16 if quota == "max" else -(-int(quota) // int(period))
    except (OSError, ValueError):
        return 1 << 16
