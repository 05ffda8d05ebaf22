"""The numbers as Markdown, and the machine they come from."""

import importlib.metadata
import os
import platform
import statistics
from pathlib import Path
from typing import Any

from engine_bench.measure import WorkloadNumbers
from engine_bench.sides import OURS, REFERENCE

from promptopt.lm.llama_cpp.cpu_cores import physical_cores

LIBRARIES = ("llama-cpp-python", "transformers", "torch", "numpy", "gguf")
HEADINGS = (
    "side", "calls/s", "x llama", "x best peer", "same answers", "prompt tokens computed", "tokens out", "KV MiB",
)  # fmt: skip


def cpu_model() -> str:
    """Return the processor as Linux names it, or what Python knows."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def machine() -> dict[str, Any]:
    """Return the CPU, its cores, and the versions of the libraries that are compared."""
    versions = {}
    for name in LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return {
        "cpu": cpu_model(), "cores": physical_cores(), "cpus": os.cpu_count(), "system": platform.platform(),
        "python": platform.python_version(), "load_before": os.getloadavg()[0], "libraries": versions,
    }  # fmt: skip


def table(headings: tuple[str, ...], rows: list[list[str]]) -> str:
    """Return a Markdown table."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def workload_text(numbers: WorkloadNumbers, kv_bytes_per_token: int) -> str:
    """Return one workload's heading, table and cost line."""
    total, unique = statistics.median(numbers.prompt_tokens), statistics.median(numbers.unique)
    need = unique * kv_bytes_per_token / 2**20
    lines = [
        f"#### {numbers.name}: {numbers.title}",
        "",
        f"{numbers.calls} calls, {total:.0f} prompt tokens, {unique:.0f} unique ({need:.1f} MiB of keys and values).",
        "",
        table(HEADINGS, [_row(numbers, side) for side in numbers.sides]),
        "",
        *_cost_lines(numbers),
        *(f"{side} is left out: {reason}." for side, reason in numbers.left_out.items()),
    ]
    return "\n".join(lines)


def _row(numbers: WorkloadNumbers, side: str) -> list[str]:
    mine, best = numbers.sides[side], numbers.best_peer
    rounds = len(mine.seconds)
    computed = "-" if None in mine.computed else f"{statistics.median(n for n in mine.computed if n is not None):.0f}"
    return [
        side,
        f"{numbers.calls / numbers.seconds(side):.2f}",
        f"{numbers.ratio(side, REFERENCE):.2f}",
        "-" if best is None else f"{numbers.ratio(side, best):.2f}{' (best)' if side == best else ''}",
        f"{sum(mine.same) / (rounds * numbers.calls):.1%}",
        computed,
        f"{statistics.median(mine.generated):.0f}",
        "-" if mine.kv_bytes is None else f"{mine.kv_bytes / 2**20:.1f}",
    ]


def _cost_lines(numbers: WorkloadNumbers) -> list[str]:
    if not numbers.rates:
        return []
    names = ("prompt_token_s", "generated_token_s", "request_s")
    prompt_s, generated_s, request_s = (statistics.median(getattr(r, name) for r in numbers.rates) for name in names)
    predicted = statistics.median(numbers.predicted)
    measured = [
        f"{side} {numbers.seconds(side):.2f} s ({predicted / numbers.seconds(side) - 1:+.0%})"
        for side in OURS
        if side in numbers.sides
    ]
    resident = f" Resident at the end: {statistics.median(numbers.resident):.0f} tokens." if numbers.resident else ""
    return [
        f"Cost model: {prompt_s * 1e3:.3f} ms per prompt token, {generated_s * 1e3:.3f} ms per "
        f"generated token, {request_s * 1e3:.2f} ms per request; predicted {predicted:.2f} s, measured "
        f"{', '.join(measured)}.{resident}"
    ]
