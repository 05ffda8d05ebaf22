"""What prompts cost to answer, from measured rates: unique prompt tokens, generated tokens, requests. Knows no model.

An engine that shares prefixes computes a token of a common beginning once, however many prompts have it. So a layout is
priced by the tokens of the union of its prompts, not by their sum. `llama_cpp.rates.measure_rates` measures the rates.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from promptopt.errors import ConfigError
from promptopt.lm.llama_cpp.batching.prefix_tree import TOKEN_BYTES, shared_tokens, token_key


@dataclass(frozen=True, slots=True)
class CostModel:
    """Seconds that tokens take on one model and machine, while many requests run at once.

    Attributes:
        prompt_token_s: per prompt token that is computed.
        generated_token_s: per generated token.
        request_s: per request, whatever its length.
    """

    prompt_token_s: float
    generated_token_s: float
    request_s: float = 0.0

    def __post_init__(self) -> None:
        for name in ("prompt_token_s", "generated_token_s", "request_s"):
            value = getattr(self, name)
            if not 0 <= value < float("inf"):
                raise ConfigError(f"{name} is {value!r}; allowed are finite seconds, 0 or more. Measure again.")

    def seconds(self, unique_prompt_tokens: int, generated_tokens: int, requests: int = 0) -> float:
        """Return the seconds that so many tokens and requests take."""
        return (
            unique_prompt_tokens * self.prompt_token_s
            + generated_tokens * self.generated_token_s
            + requests * self.request_s
        )

    def price(self, prompts: Sequence[Sequence[int]], generated_tokens: int) -> float:
        """Return the seconds that answering all `prompts` (token ids) takes.

        Args:
            generated_tokens: of all answers together.
        """
        return self.seconds(unique_tokens(prompts), generated_tokens, len(prompts))


def unique_tokens(prompts: Sequence[Sequence[int]]) -> int:
    """Return the tokens of all prompts (token ids), those of a common beginning counted once."""
    # In the order of their tokens, a prompt shares its longest beginning with the one before it.
    keys = sorted(map(token_key, prompts))
    total = sum(len(key) for key in keys) // TOKEN_BYTES
    return total - sum(shared_tokens(before, key) for before, key in itertools.pairwise(keys))
