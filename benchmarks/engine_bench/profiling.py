"""Where the engine's time goes at full load, and how long a client waits for its first token."""

import statistics
from typing import Any

from engine_bench.drive import Answer, from_threads
from engine_bench.ours import greedy
from engine_bench.workloads import Call, Words, Workload, text_tokens

from promptopt.lm.llama_cpp.local_chat import LocalChat

CLIENTS = 16
PROMPT_TOKENS = 300


def profile(chat: LocalChat, scale: float) -> dict[str, dict[str, Any]]:
    """Return, per kind of load, what 16 clients see that ask again as soon as they are answered.

    Two kinds: prompts that share all but their last 60 of 300 tokens, and prompts that share nothing; 32 tokens out.
    `outside_decode` is the share of the time in which there was a request that was not spent inside llama_decode.
    Times to the first token count from submission, so waiting for a place is in them.
    """
    tokens = text_tokens(chat)
    count = max(2 * CLIENTS, round(8 * CLIENTS * scale))
    words = Words(tokens, 0)
    prefix = words.draw(PROMPT_TOKENS - 60)
    loads = {
        "shared prefix": [Call(prefix + words.draw(60), 32) for _ in range(count)],
        "nothing shared": [Call(words.draw(PROMPT_TOKENS), 32) for _ in range(count)],
    }
    _load(chat, [Call(words.draw(PROMPT_TOKENS), 32) for _ in range(CLIENTS)])
    return {name: _load(chat, calls) for name, calls in loads.items()}


def _load(chat: LocalChat, calls: list[Call]) -> dict[str, Any]:
    firsts: list[float] = []
    latencies: list[float] = []

    def ask(prompt: tuple[int, ...], max_tokens: int) -> Answer:
        made = greedy(chat, prompt, max_tokens)
        firsts.append(made.first_token_s)
        latencies.append(made.latency_s)
        return Answer(prompt, made.tokens)

    before = chat.stats()
    from_threads(Workload("load", "load", tuple(calls), CLIENTS), [ask] * CLIENTS)
    after = chat.stats()
    busy, decode = after.busy_seconds - before.busy_seconds, after.decode_seconds - before.decode_seconds
    steps = after.decode_calls - before.decode_calls
    return {
        "calls": len(calls),
        "outside_decode": 1 - decode / busy,
        "mean_batch": (after.decode_rows - before.decode_rows) / max(1, steps),
        "first_token_p50_s": _percentile(firsts, 50),
        "first_token_p95_s": _percentile(firsts, 95),
        "latency_p50_s": _percentile(latencies, 50),
        "latency_p95_s": _percentile(latencies, 95),
    }


def _percentile(values: list[float], percent: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]
