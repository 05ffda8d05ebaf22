"""Calls per second of `promptopt`'s LlamaCpp and of plain `llama_cpp.Llama`, on the same prompts in one run.

    python benchmarks/calls_per_second.py [--model M.gguf] [--calls 12] [--pairs 3] [--max-tokens 8] [--threads 2]

Two workloads: one shared prefix (prompt search with one layout) and alternating prefixes (a study with several
candidates, or a program with several predictors). Plain Llama keeps the prefix of its last call, as it does by itself.
Response caches are off. Both answer every prompt once untimed, and the greedy token ids are compared; then timed rounds
alternate between the two, and medians are reported.
"""

import argparse
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import llama_cpp

from promptopt.lm.llama_cpp.facade import LlamaCpp
from promptopt.lm.user_cache import user_cache_dir

PREFIX_TOKENS = 300
WORDS = ("the", "answer", "question", "context", "model", "of", "東京", "日本", "is", "one", "field", "text", "value")
Generate = Callable[[list[int], int], list[int]]


def default_model(folder: Path) -> Path:
    """The starter's f16 GGUF if it was unpacked before, else a random Llama of a few million weights."""
    starters = sorted((user_cache_dir() / "models").glob("starter-*/*f16.gguf"))
    if starters:
        return starters[-1]
    from tests.fixtures_gguf import write_tiny_gguf

    return write_tiny_gguf(folder / "random.gguf", file_type="f16", width=256, n_layers=4, n_ctx_train=1024)


def workloads(lm: LlamaCpp, calls: int) -> dict[str, list[list[int]]]:
    """Token ids of prompts: a prefix of `PREFIX_TOKENS` and an own end of 5 to 15 words."""
    rng = random.Random(0)
    room = min(PREFIX_TOKENS, lm.n_ctx // 2)

    def prompt(system: str, number: int) -> list[int]:
        end = f"{number} " + " ".join(rng.choices(WORDS, k=rng.randint(5, 15)))
        return lm.tokenize_messages([{"role": "system", "content": system}, {"role": "user", "content": end}])

    def system() -> str:
        words = rng.choices(WORDS, k=300)
        while lm.count_tokens([{"role": "user", "content": " ".join(words)}]) > room:
            words = words[: len(words) * 9 // 10]
        return " ".join(words)

    systems = [system() for _ in range(3)]
    return {
        "one shared prefix": [prompt(systems[0], number) for number in range(calls)],
        "3 alternating prefixes": [prompt(systems[number % 3], number) for number in range(calls)],
    }


def plain_generator(plain: llama_cpp.Llama, ends: Callable[[int], bool]) -> Generate:
    def generate(prompt: list[int], max_tokens: int) -> list[int]:
        tokens: list[int] = []
        for token in plain.generate(prompt, temp=0.0):
            if ends(token):
                break
            tokens.append(token)
            # Leaving here and not one token later spares plain Llama a decode that it does not need.
            if len(tokens) == max_tokens:
                break
        return tokens

    return generate


def plain_survives(path: Path) -> bool:
    """Whether plain Llama decodes this file on this machine: some AMX CPUs crash on quantized files."""
    code = (
        "import sys, llama_cpp; m = llama_cpp.Llama(sys.argv[1], n_ctx=256, verbose=False); "
        "m.eval(list(range(40))); m.eval([1])"
    )
    return subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, check=False).returncode == 0


def seconds(generate: Generate, prompts: list[list[int]], max_tokens: int) -> float:
    started = time.perf_counter()
    for prompt in prompts:
        generate(prompt, max_tokens)
    return time.perf_counter() - started


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--calls", type=int, default=12)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--max-tokens", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = arguments.model or default_model(Path(folder))
        return compare(path, arguments)


def compare(path: Path, arguments: argparse.Namespace) -> int:
    if not plain_survives(path):
        print(f"plain llama_cpp.Llama crashes on {path} on this CPU: pass an f16 model to compare with it.")
        return 1
    ours = LlamaCpp(path, cache_dir=None, n_threads=arguments.threads)
    plain = llama_cpp.Llama(
        str(path), n_ctx=ours.n_ctx, n_threads=arguments.threads, n_threads_batch=arguments.threads, verbose=False
    )
    sides: dict[str, Generate] = {
        "plain": plain_generator(plain, ours.chat.model.ends_generation),
        "promptopt": ours.generate_tokens,
    }
    info = ours.chat.model.info
    print(f"{path.name}: {info.architecture}, {info.quantization}, {info.n_params / 1e6:.1f} M weights, "
          f"{ours.chat.model.n_slots} slots, {arguments.threads} threads, {arguments.calls} calls, "
          f"{arguments.max_tokens} tokens each, median of {arguments.pairs} pairs")  # fmt: skip
    print(f"{'workload':24} {'tokens':>7} {'plain/s':>9} {'promptopt/s':>12} {'ratio':>7} {'same greedy':>12}")
    for name, prompts in workloads(ours, arguments.calls).items():
        same = sum(
            sides["plain"](prompt, arguments.max_tokens) == sides["promptopt"](prompt, arguments.max_tokens)
            for prompt in prompts
        )
        taken: dict[str, list[float]] = {"plain": [], "promptopt": []}
        for pair in range(arguments.pairs):
            # Whoever goes first meets a colder machine: take turns.
            for side in sorted(sides, reverse=bool(pair % 2)):
                taken[side].append(seconds(sides[side], prompts, arguments.max_tokens))
        ratios = [plain_s / ours_s for plain_s, ours_s in zip(taken["plain"], taken["promptopt"], strict=True)]
        rates = {side: len(prompts) / statistics.median(values) for side, values in taken.items()}
        length = statistics.mean(map(len, prompts))
        print(f"{name:24} {length:7.0f} {rates['plain']:9.1f} {rates['promptopt']:12.1f} "
              f"{statistics.median(ratios):7.2f} {same:5d} of {len(prompts)}")  # fmt: skip
    ours.close()
    plain.close()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
