"""What this machine offers a training: memory, and on a CPU how fast it multiplies and copies, measured in a moment."""

import os
import platform
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from promptopt.errors import ConfigError
from promptopt.extras import require
from promptopt.finetune.base_model import training_device
from promptopt.finetune.estimate import HEAP_HOLES, Device, Machine
from promptopt.finetune.gpus import GPUS, Gpu, find_gpu

_SIDE = 1024
_COPIED_BYTES = 2**26
_ROUNDS = 5


def machine_memory() -> int:
    """Return the bytes of this machine's memory; a limit of its container counts."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        with open("/sys/fs/cgroup/memory.max", encoding="ascii") as file:
            limit = file.read().strip()
    except OSError:
        return total
    return min(total, int(limit)) if limit.isdigit() else total


def heap_holes() -> float:
    """Return `Machine.holes` of a CPU training here: glibc uses freed aligned blocks again since 2.38."""
    library, version = platform.libc_ver()
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    return HEAP_HOLES if library == "glibc" and numbers < (2, 38) else 0.1


def likely_device() -> Device:
    """Return the device a training here would use; torch is asked only where there is a driver for a card."""
    if shutil.which("nvidia-smi") is None and not Path("/proc/driver/nvidia").exists():
        return "cpu"
    return "cuda" if training_device() == "cuda" else "cpu"


def of_gpu(gpu: Gpu) -> Machine:
    """Return a machine with this card."""
    return Machine(gpu.name, "cuda", gpu.memory_gib * 2**30, gpu.tflops * 1e12, gpu.bandwidth_gb_s * 1e9)


def this_machine(device: Device, *, measure: bool = True) -> Machine:
    """Return this machine, for a training on `device`.

    Args:
        measure: how fast a CPU is; takes half a second. False leaves speeds at 1.

    Raises:
        ConfigError: `device` is "cuda" and torch sees no card.
        MissingExtraError: the `finetune` extra is not installed.
    """
    if device == "cpu":
        flops, bandwidth = (_products_per_s(), _copied_per_s()) if measure else (1.0, 1.0)
        return Machine("this machine's CPU", "cpu", machine_memory(), flops, bandwidth, heap_holes())
    torch = require("torch")
    if not torch.cuda.is_available():
        raise ConfigError("torch sees no CUDA card here. Name one with --gpu, e.g. --gpu 'RTX 4090', or --device cpu.")
    found = torch.cuda.get_device_properties(0)
    try:
        known = find_gpu(found.name)
    except ConfigError:
        # Another card: its own memory, and the speed of the smallest one that has as much.
        known = min((gpu for gpu in GPUS if gpu.memory_gib * 2**30 >= 0.9 * found.total_memory), default=GPUS[-1],
                    key=lambda gpu: gpu.memory_gib)  # fmt: skip
    return Machine(str(found.name), "cuda", found.total_memory, known.tflops * 1e12, known.bandwidth_gb_s * 1e9)


def _products_per_s() -> float:
    torch = require("torch")
    left, right = torch.ones(_SIDE, _SIDE), torch.ones(_SIDE, _SIDE)
    return 2 * _SIDE**3 / _shortest(lambda: torch.mm(left, right))


def _copied_per_s() -> float:
    torch = require("torch")
    source = torch.ones(_COPIED_BYTES // 4)
    target = torch.empty_like(source)
    return _COPIED_BYTES / _shortest(lambda: target.copy_(source))


def _shortest(work: Callable[[], object]) -> float:
    """Return the seconds that `work` takes on an idle machine."""
    threads = require("torch").get_num_threads()
    work()
    times = []
    for _ in range(_ROUNDS):
        # Processor time, because other work may have the machine now and not while it trains.
        started = time.process_time()
        work()
        times.append(time.process_time() - started)
    return max(min(times) / int(threads), 1e-9)
