"""llama-cpp-python's `Llama`, one call at a time in natural order of arrival, with and without its own prefix reuse."""

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import llama_cpp
from engine_bench.drive import Answer, one_by_one
from engine_bench.sides import Setup, SideMissing
from engine_bench.workloads import Workload


class PlainLlama:
    """`llama_cpp.Llama`, which starts each prompt after what it shares with the last one.

    Args:
        cold: reset before every prompt.
    """

    def __init__(self, setup: Setup, *, cold: bool) -> None:
        if not setup.n_gpu_layers and not plain_survives(setup.path):
            raise SideMissing(f"plain llama_cpp.Llama crashes on {setup.path.name} on this CPU: use an f16 model")
        self._kv_bytes = setup.n_ctx * setup.chat.model.kv_bytes_per_token
        self._cold = cold
        self._evaluated: list[int] = []
        self._llama: Any = llama_cpp.Llama(
            str(setup.path), n_ctx=setup.n_ctx, n_threads=setup.threads, n_threads_batch=setup.threads,
            n_gpu_layers=setup.n_gpu_layers, verbose=False,
        )  # fmt: skip
        self._generate = plain_generator(self._llama, setup.ends)
        evaluate = self._llama.eval

        def counted(tokens: Sequence[int]) -> None:
            self._evaluated.append(len(tokens))
            evaluate(tokens)

        self._llama.eval = counted

    def run(self, workload: Workload) -> list[Answer]:
        self._llama.reset()
        return one_by_one(workload, self._ask)

    def _ask(self, prompt: tuple[int, ...], max_tokens: int) -> Answer:
        if self._cold:
            self._llama.reset()
        self._evaluated.clear()
        tokens = self._generate(list(prompt), max_tokens)
        # The first evaluation of a call is its prompt, later ones are single tokens.
        return Answer(prompt, tuple(tokens), self._evaluated[0] if self._evaluated else 0)

    def kv_bytes(self) -> int:
        return self._kv_bytes

    def close(self) -> None:
        self._llama.close()


def plain_generator(plain: llama_cpp.Llama, ends: Callable[[int], bool]) -> Callable[[list[int], int], list[int]]:
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
