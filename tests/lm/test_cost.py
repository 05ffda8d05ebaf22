"""The cost model: prefixes are counted once, and rates measured on a tiny model price its own work."""

import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptopt.errors import ConfigError, ContextLengthError
from promptopt.lm.cost import CostModel, unique_tokens
from promptopt.lm.llama_cpp.batching.prefix_tree import PrefixTree, token_key
from promptopt.lm.llama_cpp.local_chat import LocalChat
from promptopt.lm.llama_cpp.model import LoadOptions
from promptopt.lm.llama_cpp.rates import measure_rates

PROMPTS = st.lists(st.lists(st.sampled_from([0, 1, 255, 256, 70000]), max_size=6), max_size=8)


def every_prefix(prompts: Sequence[Sequence[int]]) -> int:
    return len({tuple(prompt[: end + 1]) for prompt in prompts for end in range(len(prompt))})


@pytest.mark.parametrize(
    ("prompts", "unique"),
    [
        ([], 0),
        ([[]], 0),
        ([[1, 2, 3]], 3),
        ([[1, 2, 3], [1, 2, 3]], 3),
        ([[1, 2, 3], [1, 2, 4], [1, 5]], 5),
        ([[1, 2], [2, 1]], 4),
        ([[1], [1, 2, 3, 4], [1, 2]], 4),
    ],
)
def test_common_beginnings_count_once(prompts: list[list[int]], unique: int) -> None:
    assert unique_tokens(prompts) == unique


@given(PROMPTS)
def test_unique_tokens_are_all_distinct_beginnings_and_what_the_tree_holds(prompts: list[list[int]]) -> None:
    tree = PrefixTree()
    for lane, prompt in enumerate(prompts):
        tree.insert(lane, token_key(prompt))
    assert unique_tokens(prompts) == every_prefix(prompts) == tree.unique_tokens


@given(PROMPTS, st.randoms(use_true_random=False))
def test_order_does_not_matter(prompts: list[list[int]], shuffler: random.Random) -> None:
    shuffled = list(prompts)
    shuffler.shuffle(shuffled)
    assert unique_tokens(shuffled) == unique_tokens(prompts)


def test_price_is_unique_tokens_generated_tokens_and_requests() -> None:
    model = CostModel(prompt_token_s=0.001, generated_token_s=0.01, request_s=0.1)
    assert model.seconds(600, 32, 2) == pytest.approx(0.6 + 0.32 + 0.2)
    assert model.price([[1, 2, 3], [1, 2, 4]], generated_tokens=10) == pytest.approx(0.004 + 0.1 + 0.2)


def test_a_shared_prefix_is_cheaper_than_the_same_length_apart() -> None:
    model = CostModel(0.001, 0.01)
    shared = [[*range(100), 1000 + n] for n in range(8)]
    apart = [[1000 + n, *range(100)] for n in range(8)]
    assert model.price(shared, 8) < model.price(apart, 8) / 4


@pytest.mark.parametrize("rate", [-1.0, float("nan"), float("inf")])
def test_rates_must_be_seconds(rate: float) -> None:
    with pytest.raises(ConfigError, match=r"generated_token_s is .*allowed"):
        CostModel(0.001, rate)


def test_rates_are_measured(gguf_path: Path) -> None:
    chat = LocalChat(gguf_path, LoadOptions(n_threads=1, parallel=4))
    try:
        rates = measure_rates(chat, rounds=3)
        assert rates.prompt_token_s > 0
        assert rates.generated_token_s > 0
        assert rates.seconds(1000, 100, 10) > rates.seconds(100, 100, 10)
        assert chat.stats().requests_running == 0
    finally:
        chat.close()


def test_rates_need_a_context(gguf_path: Path) -> None:
    chat = LocalChat(gguf_path, LoadOptions(n_ctx=128, n_threads=1))
    try:
        with pytest.raises(ContextLengthError, match="n_ctx is 128"):
            measure_rates(chat)
    finally:
        chat.close()
