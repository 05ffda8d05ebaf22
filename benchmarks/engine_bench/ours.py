"""promptopt's engine: from as many threads as ask, in order of arrival; and as one list, which it puts in order."""

from pathlib import Path

from engine_bench.drive import Answer, from_threads
from engine_bench.sides import Setup, SideMissing
from engine_bench.workloads import Workload

from promptopt.lm.llama_cpp.batching.prefix_tree import token_key
from promptopt.lm.llama_cpp.local_chat import LocalChat
from promptopt.lm.llama_cpp.requests import Generated, GenerationRequest
from promptopt.lm.llama_cpp.sampling import Sampling


def greedy(chat: LocalChat, prompt: tuple[int, ...], max_tokens: int) -> Generated:
    """Answer one prompt; blocks."""
    return chat.engine.submit(GenerationRequest(prompt, max_tokens, Sampling())).result()


class Promptopt:
    """Requests from threads, as DSPy and the evaluation loop make them, to the engine of the setup."""

    def __init__(self, setup: Setup) -> None:
        self._chat = setup.chat

    def run(self, workload: Workload) -> list[Answer]:
        def ask(prompt: tuple[int, ...], max_tokens: int) -> Answer:
            made = greedy(self._chat, prompt, max_tokens)
            return Answer(prompt, made.tokens, made.prompt_tokens_computed)

        return from_threads(workload, [ask] * workload.clients)

    def kv_bytes(self) -> int | None:
        return self._chat.stats().kv_bytes

    def close(self) -> None:
        """Leave the engine to the setup's owner."""


class PromptoptMany:
    """All requests at once in the order of their tokens, as `LocalChat.complete_many` submits them; owns an engine."""

    def __init__(self, setup: Setup) -> None:
        self._chat = LocalChat(Path(setup.path), setup.chat.options)

    def run(self, workload: Workload) -> list[Answer]:
        if not workload.independent:
            raise SideMissing("calls wait for others, so they are no list")
        calls, submit = workload.calls, self._chat.engine.submit
        order = sorted(range(len(calls)), key=lambda number: token_key(calls[number].head))
        futures = {n: submit(GenerationRequest(calls[n].head, calls[n].max_tokens, Sampling())) for n in order}
        made = [futures[number].result() for number in range(len(calls))]
        return [
            Answer(call.head, one.tokens, one.prompt_tokens_computed) for call, one in zip(calls, made, strict=True)
        ]

    def kv_bytes(self) -> int | None:
        return self._chat.stats().kv_bytes

    def close(self) -> None:
        self._chat.close()
