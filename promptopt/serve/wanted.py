"""From the fields of a request to the `ChatRequest`s that the model gets: one for each draw of each prompt."""

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from promptopt.errors import ConfigError
from promptopt.lm.llama_cpp.grammar import check_grammar, gbnf_of_response_format
from promptopt.lm.llama_cpp.local_chat import ChatRequest
from promptopt.lm.llama_cpp.sampling import Sampling
from promptopt.lm.protocol import Messages
from promptopt.serve.failures import RequestRefused
from promptopt.serve.fields import ChatBody, TextBody
from promptopt.serve.messages import plain_messages

TEXT_MAX_TOKENS = 16
"""What OpenAI's completions give where max_tokens is left out; a chat may fill the context."""
SEED_BITS = 32


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a client asked for.

    Attributes:
        requests: prompt by prompt, and within a prompt draw by draw; their order is the order of `choices`.
        draws: how many answers each prompt gets.
        stream: whether the answers go out piece by piece.
        include_usage: whether a stream ends with the token counts.
    """

    requests: tuple[ChatRequest, ...]
    draws: int
    stream: bool
    include_usage: bool


def wanted_of_chat(body: ChatBody, n_ctx: int) -> Wanted:
    """Read a chat request; max_tokens left out = as much as `n_ctx` has room for.

    Raises:
        RequestRefused, ConfigError: fields contradict each other, or have values out of range.
    """
    if body.top_logprobs is not None and not body.logprobs:
        raise RequestRefused("top_logprobs is given without logprobs; send logprobs: true too.", param="top_logprobs")
    limits = [limit for limit in (body.max_tokens, body.max_completion_tokens) if limit is not None]
    if len(set(limits)) > 1:
        raise RequestRefused(
            f"max_tokens is {body.max_tokens} and max_completion_tokens is {body.max_completion_tokens}; they mean the "
            "same, so send one of them.",
            param="max_completion_tokens",
        )
    logprobs = (body.top_logprobs or 0) if body.logprobs else None
    return _wanted(body, [plain_messages(body.messages)], limits[0] if limits else n_ctx, logprobs)


def wanted_of_text(body: TextBody) -> Wanted:
    """Read a completion request. Raises as `wanted_of_chat`."""
    prompts = [body.prompt] if isinstance(body.prompt, str) else body.prompt
    if not prompts:
        raise RequestRefused("The field 'prompt' is []; at least one text is needed.", param="prompt")
    max_tokens = TEXT_MAX_TOKENS if body.max_tokens is None else body.max_tokens
    return _wanted(body, prompts, max_tokens, body.logprobs)


def _wanted(
    body: ChatBody | TextBody, prompts: Sequence[Messages | str], max_tokens: int, logprobs: int | None
) -> Wanted:
    if body.stream_options is not None and not body.stream:
        raise RequestRefused("stream_options is given without stream; send stream: true too.", param="stream_options")
    stop = (body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ())
    draws = body.n or 1
    sampling = _sampling(body)
    grammar = _grammar(body)
    requests = []
    for prompt in prompts:
        for number in range(draws):
            drawn = replace(sampling, seed=draw_seed(sampling.seed, number))
            requests.append(ChatRequest(prompt, max_tokens, drawn, stop, grammar, logprobs))
    options = body.stream_options
    return Wanted(tuple(requests), draws, bool(body.stream), bool(options and options.include_usage))


def draw_seed(seed: int, number: int) -> int:
    """Return the seed of draw `number` of a prompt: `seed` itself for the first, others follow from it."""
    if number == 0:
        return seed
    digest = hashlib.sha256(f"{seed}:{number}".encode()).digest()
    return int.from_bytes(digest[: SEED_BITS // 8], "big")


def _sampling(body: ChatBody | TextBody) -> Sampling:
    """Return the settings; a request without a seed draws afresh each time, and one without a temperature is greedy."""
    names = (
        "temperature", "top_p", "top_k", "min_p", "seed", "repetition_penalty", "frequency_penalty", "presence_penalty",
    )  # fmt: skip
    given = {name: value for name in names if (value := getattr(body, name)) is not None}
    return Sampling(**{"seed": secrets.randbits(SEED_BITS), **given})


def _grammar(body: ChatBody | TextBody) -> str | None:
    asked = None
    if body.response_format is not None:
        try:
            asked = gbnf_of_response_format(body.response_format)
        except (ConfigError, RecursionError) as error:
            raise RequestRefused(f"response_format cannot be kept: {error}", param="response_format") from error
    if body.grammar is None:
        return asked
    if asked is not None:
        raise RequestRefused("grammar and response_format are both given; send one of them.", param="grammar")
    try:
        return _compiling(body.grammar)
    except ConfigError as error:
        raise RequestRefused(str(error), param="grammar") from error


@lru_cache(maxsize=64)
def _compiling(grammar: str) -> str:
    """Return `grammar`, once llama.cpp has taken it: a stream could say so only after its status line is out."""
    check_grammar(grammar)
    return grammar
