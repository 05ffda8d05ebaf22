"""promptopt's engine beside its peers: same model, same prompts, same greedy decoding, in one run.

    python benchmarks/engine.py [--sizes 30m] [--types f16,q8_0] [--workloads all] [--sides all] [--pairs 3]
                                [--scale 0.1 | --full] [--llama-server PATH] [--profile] [--invariance] [--out FILE]

Sides, each with the same number of threads:

- promptopt: requests from as many threads as the workload has clients, in natural order of arrival
- promptopt-many: all requests of a workload as one list, which the engine puts in order
- llama: `llama_cpp.Llama` in natural order of arrival, with its own reuse of the last prompt; llama-cold: without
- llama-cpp-server: llama-cpp-python's server under 8 threads, over HTTP
- llama-server: llama.cpp's own server with as many slots as promptopt runs requests, over HTTP
- transformers: `generate` in batches of 16, from the same weights

What is timed is from the first request to the last answer. Every round has prompts of its own and starts without any of
them computed; sides take turns, in every second round in reverse order. Ratios are medians over rounds of one side's
seconds by another's in the same round. `same answers` is the share of calls with plain Llama's greedy tokens. What
promptopt's cost model predicts stands below each table, from rates measured just before.

Random Llamas (see random_models.py) are made once and kept in the user's cache; `starter` is the embedded model.
Needs llama-cpp-python and gguf; a side whose library or program is missing is left out with a message.
"""

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from engine_bench.invariance import invariance
from engine_bench.measure import Sides, run_workload
from engine_bench.profiling import profile
from engine_bench.report import machine, table, workload_text
from engine_bench.sides import REFERENCE, SIDES, Setup
from engine_bench.workloads import MAX_TOKENS_OF_A_PROMPT, WORKLOADS
from random_models import SHAPES, random_model

from promptopt.lm.llama_cpp.cpu_cores import physical_cores
from promptopt.lm.llama_cpp.local_chat import LocalChat
from promptopt.lm.llama_cpp.model import LoadOptions

DEFAULT_SCALE = 0.1


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a GGUF file, instead of --sizes and --types")
    parser.add_argument("--sizes", default="30m", help=f"of starter,{','.join(SHAPES)}")
    parser.add_argument("--types", default="f16,q8_0,q4_k_m")
    parser.add_argument("--models-dir", type=Path, help="where random models are kept")
    parser.add_argument("--workloads", default="all", help=f"all, none, or of {','.join(WORKLOADS)}")
    parser.add_argument("--sides", default="all", help=f"all, or of {','.join(SIDES)}")
    parser.add_argument("--scale", type=float, default=DEFAULT_SCALE, help="share of the full number of calls")
    parser.add_argument("--full", action="store_true", help="the same as --scale 1")
    parser.add_argument("--pairs", type=int, default=3, help="rounds in which every side runs once")
    parser.add_argument("--threads", type=int, default=physical_cores())
    parser.add_argument("--slots", type=int, default=16, help="requests that run at once")
    parser.add_argument("--n-gpu-layers", type=int, default=0)
    parser.add_argument("--llama-server", type=Path, help="path of llama.cpp's llama-server")
    parser.add_argument("--profile", action="store_true", help="time outside llama_decode, time to the first token")
    parser.add_argument("--invariance", action="store_true", help="a request alone against one of 16")
    parser.add_argument("--out", type=Path, help="raw numbers as JSON")
    arguments = parser.parse_args()
    chosen(arguments.workloads, WORKLOADS), chosen(arguments.sides, SIDES)  # refuse unknown names before anything runs
    arguments.scale = 1.0 if arguments.full else arguments.scale
    return arguments


def chosen(text: str, allowed: dict[str, Any]) -> list[str]:
    """Return the names of a comma-separated list, in the order they are known in."""
    names = list(allowed) if text == "all" else [name for name in text.split(",") if name and name != "none"]
    if unknown := [name for name in names if name not in allowed]:
        raise SystemExit(f"{', '.join(unknown)} is unknown; allowed are {', '.join(allowed)}.")
    return [name for name in allowed if name in names]


def models(arguments: argparse.Namespace) -> list[Path]:
    if arguments.model is not None:
        return [arguments.model]
    paths = []
    for size in arguments.sizes.split(","):
        for file_type in arguments.types.split(","):
            if size == "starter":
                from promptopt.pipeline.models import starter_gguf

                paths.append(starter_gguf(file_type))
            else:
                paths.append(random_model(size, file_type, arguments.models_dir))
    return paths


def measure_model(path: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Run everything that was asked for on one model and print it."""
    options = LoadOptions(
        n_ctx=MAX_TOKENS_OF_A_PROMPT, n_gpu_layers=arguments.n_gpu_layers, n_threads=arguments.threads,
        parallel=arguments.slots,
    )  # fmt: skip
    chat = LocalChat(path, options)
    info, model = chat.model.info, chat.model
    print(
        f"### {path.name}: {info.architecture}, {info.quantization}, {info.n_params / 1e6:.1f} M weights\n", flush=True
    )
    found: dict[str, Any] = {
        "model": path.name, "quantization": info.quantization, "n_params": info.n_params, "parallel": chat.parallel,
        "lanes": model.lanes, "kv_bytes_per_token": model.kv_bytes_per_token,
    }  # fmt: skip
    try:
        if names := chosen(arguments.workloads, WORKLOADS):
            found["workloads"] = measure_workloads(path, chat, names, arguments)
        if arguments.profile:
            found["profile"] = profile(chat, arguments.scale)
            print_rows("16 clients", found["profile"])
    finally:
        chat.close()
    if arguments.invariance:
        found["invariance"] = invariance(path, replace(options, n_ctx=512), arguments.scale)
        print_rows("alone and among 16", found["invariance"])
    return found


def measure_workloads(
    path: Path, chat: LocalChat, names: list[str], arguments: argparse.Namespace
) -> list[dict[str, Any]]:
    setup = Setup(
        path, chat, chat.n_ctx, arguments.threads, arguments.slots, arguments.n_gpu_layers, arguments.llama_server
    )
    wanted = chosen(arguments.sides, SIDES)
    sides = Sides(setup, [name for name in SIDES if name in wanted or name == REFERENCE])
    if REFERENCE not in sides.open:
        sides.close()
        return []
    measured = []
    try:
        for name in names:
            numbers = run_workload(sides, name, scale=arguments.scale, pairs=arguments.pairs)
            print(workload_text(numbers, chat.model.kv_bytes_per_token) + "\n", flush=True)
            measured.append(numbers.as_json())
    finally:
        sides.close()
    return measured


def print_rows(name: str, rows: dict[str, dict[str, Any]]) -> None:
    headings = (name, *next(iter(rows.values())))
    lines = [
        [kind, *(f"{v:.4g}" if isinstance(v, float) else str(v) for v in row.values())] for kind, row in rows.items()
    ]
    print(table(headings, lines) + "\n", flush=True)


def plain(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the arguments for JSON; of a path only its name, so that no record names a folder of this machine."""
    return {key: value.name if isinstance(value, Path) else value for key, value in vars(arguments).items()}


def main() -> int:
    arguments = parse()
    host = machine()
    print(f"{host['cpu']}, {host['cores']} cores, {arguments.threads} threads, {arguments.slots} requests at once, "
          f"load {host['load_before']:.1f} before, scale {arguments.scale:g}, median of {arguments.pairs} rounds, "
          f"{', '.join(f'{name} {version}' for name, version in host['libraries'].items())}\n")  # fmt: skip
    found = {"machine": host, "arguments": plain(arguments), "models": []}
    for path in models(arguments):
        found["models"].append(measure_model(path, arguments))
        if arguments.out is not None:
            arguments.out.write_text(json.dumps(found, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
