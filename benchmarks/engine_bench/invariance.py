"""How much an answer depends on what else runs: prompts alone, and sixteen at once, with their log probabilities."""

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

from engine_bench.workloads import Words, text_tokens

from promptopt.lm.llama_cpp.local_chat import LocalChat
from promptopt.lm.llama_cpp.model import LoadOptions
from promptopt.lm.llama_cpp.requests import Generated, GenerationRequest
from promptopt.lm.llama_cpp.sampling import Sampling

BATCH = 16
MAX_TOKENS = 32
LIKELIEST = 5


def invariance(path: Path, options: LoadOptions, scale: float) -> dict[str, dict[str, Any]]:
    """Return, for `batch_invariant` off and on, how answers of a request alone and among 16 differ.

    Prompts of 90 to 200 tokens, 60 of them common to half of the prompts; greedy, 32 tokens out. Differences are those
    of the log probabilities of the chosen token and the 5 likeliest, up to the first token that is another: after it
    the contexts differ. Log probabilities of all positions agree to the last bit only if all logits do.
    """
    found = {}
    for exact in (False, True):
        chosen = replace(options, batch_invariant=exact)
        alone, _ = _run(path, chosen, BATCH * max(1, round(4 * scale)), 1)
        together, rule = _run(path, chosen, BATCH * max(1, round(4 * scale)), BATCH)
        found[f"batch_invariant={exact}"] = {"rule": rule, **_compare(alone, together)}
    return found


def _run(path: Path, options: LoadOptions, count: int, at_once: int) -> tuple[list[Generated], str]:
    """Answer `count` prompts on a model loaded anew, `at_once` at a time; also return the rule of its batches."""
    chat = LocalChat(path, options)
    try:
        words, rng = Words(text_tokens(chat), 0), random.Random(0)
        prefix = words.draw(60)
        prompts = [(prefix if n % 2 else words.draw(60)) + words.draw(rng.randint(30, 140)) for n in range(count)]
        made = [one for start in range(0, count, at_once) for one in _answers(chat, prompts[start : start + at_once])]
        return made, chat.engine.batch_rule
    finally:
        chat.close()


def _compare(alone: list[Generated], together: list[Generated]) -> dict[str, Any]:
    count = len(alone)
    differences = [_differences(left, right) for left, right in zip(alone, together, strict=True)]
    firsts = [next((n, d) for n, d in enumerate(row) if d > 0) for row in differences if any(d > 0 for d in row)]
    return {
        "requests": count,
        "same_answers": sum(left.tokens == right.tokens for left, right in zip(alone, together, strict=True)) / count,
        "same_bits": 1 - len(firsts) / count,
        "first_difference_at_token": min((place for place, _ in firsts), default=None),
        "first_difference": min(firsts)[1] if firsts else 0.0,
        "largest_difference": max((d for row in differences for d in row), default=0.0),
    }


def _answers(chat: LocalChat, prompts: list[tuple[int, ...]]) -> list[Generated]:
    futures = [
        chat.engine.submit(GenerationRequest(prompt, MAX_TOKENS, Sampling(), logprobs=LIKELIEST)) for prompt in prompts
    ]
    return [future.result() for future in futures]


def _differences(left: Generated, right: Generated) -> list[float]:
    """Return per position the largest difference of a log probability, as far as the contexts are the same."""
    rows: list[float] = []
    for mine, other in zip(left.logprobs or (), right.logprobs or (), strict=False):
        theirs = {entry.token: entry.logprob for entry in (other, *other.top)}
        shared = [abs(e.logprob - theirs[e.token]) for e in (mine, *mine.top) if e.token in theirs]
        rows.append(max(shared, default=0.0))
        if mine.token != other.token:
            break
    return rows
