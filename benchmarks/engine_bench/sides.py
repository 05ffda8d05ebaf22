"""The sides that are compared: what each is called, what it needs, and how one is opened."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from engine_bench.drive import Answer
from engine_bench.workloads import Workload

from promptopt.lm.llama_cpp.local_chat import LocalChat


class SideMissing(Exception):
    """This side cannot run here; the message says why."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What all sides of one model are given.

    Attributes:
        chat: promptopt's engine on the model; also the tokenizer of sides that speak text.
        n_ctx: tokens that one prompt with its answer may take.
        slots: requests that run at once, on the sides that can.
        llama_server: path of llama.cpp's `llama-server`.
    """

    path: Path
    chat: LocalChat
    n_ctx: int
    threads: int
    slots: int
    n_gpu_layers: int
    llama_server: Path | None

    def ends(self, token: int) -> bool:
        """Whether a token ends the answer."""
        return self.chat.model.vocabulary.ends_generation(token)

    def text(self, tokens: tuple[int, ...]) -> str:
        """Return the text of token ids."""
        return b"".join(map(self.chat.model.vocabulary.token_bytes, tokens)).decode("utf-8", "replace")


class Side(Protocol):
    """Something that answers a workload."""

    def run(self, workload: Workload) -> list[Answer]:
        """Answer all calls, in the order of the calls; nothing of an earlier workload's prompts may help."""
        ...

    def kv_bytes(self) -> int | None:
        """Return the bytes that keys and values take, by the sizes that were asked for; None = unknown."""
        ...

    def close(self) -> None:
        """Free everything."""
        ...


def _promptopt(setup: Setup) -> Side:
    from engine_bench.ours import Promptopt

    return Promptopt(setup)


def _promptopt_many(setup: Setup) -> Side:
    from engine_bench.ours import PromptoptMany

    return PromptoptMany(setup)


def _llama(setup: Setup) -> Side:
    from engine_bench.plain import PlainLlama

    return PlainLlama(setup, cold=False)


def _llama_cold(setup: Setup) -> Side:
    from engine_bench.plain import PlainLlama

    return PlainLlama(setup, cold=True)


def _llama_cpp_server(setup: Setup) -> Side:
    from engine_bench.servers import LlamaCppPythonServer

    return LlamaCppPythonServer(setup)


def _llama_server(setup: Setup) -> Side:
    from engine_bench.servers import LlamaServer

    return LlamaServer(setup)


def _transformers(setup: Setup) -> Side:
    from engine_bench.hugging_face import Transformers

    return Transformers(setup)


OURS = ("promptopt", "promptopt-many")
REFERENCE = "llama"
SIDES: dict[str, Callable[[Setup], Side]] = {
    "promptopt": _promptopt,
    "promptopt-many": _promptopt_many,
    REFERENCE: _llama,
    "llama-cold": _llama_cold,
    "llama-cpp-server": _llama_cpp_server,
    "llama-server": _llama_server,
    "transformers": _transformers,
}
