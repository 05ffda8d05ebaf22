"""Between DSPy's canonical requests and promptopt's chat prompts: the only file that knows both shapes."""

import hashlib
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from dspy.lm15 import (
    ConfigurationError,
    LM15Error,
    Message,
    ProviderError,
    Request,
    Response,
    UnsupportedFeatureError,
    Usage,
)
from dspy.lm15 import ContextLengthError as Lm15ContextLengthError

from promptopt.errors import ConfigError, ContextLengthError, LMError, PromptoptError, PromptRefusedError
from promptopt.lm.protocol import Completion

SUPPORTED_PARAMS = frozenset({"max_tokens", "temperature", "top_p", "top_k", "seed", "stop"})


class _Draws:
    """Which of several answers to one prompt is being asked for: DSPy strips `rollout_id` and `n` before the engine."""

    def __init__(self, rollout_id: int | None) -> None:
        self.rollout_id = rollout_id
        self.count = itertools.count()


_draws: ContextVar[_Draws | None] = ContextVar("promptopt_draws", default=None)


@contextmanager
def counting_draws(rollout_id: int | None) -> Iterator[None]:
    """Within one LM call, let every request draw its own answer."""
    token = _draws.set(_Draws(rollout_id))
    try:
        yield
    finally:
        _draws.reset(token)


def drawn_seed(seed: int) -> int:
    """Return the seed of the next answer of the current LM call.

    The first answer without `rollout_id` uses `seed` itself; every other (rollout_id, number) has a seed of its own, so
    that `n=5` gives five draws and a new `rollout_id` a fresh one, all reproducible.
    """
    draws = _draws.get()
    if draws is None:
        return seed
    number = next(draws.count)
    if draws.rollout_id is None and number == 0:
        return seed
    digest = hashlib.sha256(f"{seed}:{draws.rollout_id}:{number}".encode()).digest()
    return int.from_bytes(digest[:4], "big")


def messages_of(request: Request) -> list[dict[str, str]]:
    """Return the chat messages of a request.

    Raises:
        UnsupportedFeatureError: it asks for what a text-only local model cannot do (tools, images, schemas).
    """
    _refuse_unsupported(request)
    messages = []
    if request.system is not None:
        text = request.system if isinstance(request.system, str) else _text(Message.user(request.system))
        messages.append({"role": "system", "content": text})
    for message in request.messages:
        # A system message that is not the first arrives as "developer".
        role = "system" if message.role == "developer" else message.role
        messages.append({"role": role, "content": _text(message)})
    return messages


def _text(message: Message) -> str:
    if message.role == "tool" or message.text is None:
        kinds = ", ".join(sorted({part.type for part in message.parts}))
        raise UnsupportedFeatureError(f"This LM reads text only; a {message.role} message holds: {kinds}.")
    return str(message.text)


def _refuse_unsupported(request: Request) -> None:
    config = request.config
    wanted = {
        "tools": request.tools,
        "response_format": config.response_format,
        "logprobs": config.logprobs is not None,
        "reasoning": config.reasoning,
        "frequency_penalty": config.frequency_penalty,
        "presence_penalty": config.presence_penalty,
        "probabilities": config.probabilities not in (None, "off", "if_available"),
        **(config.extensions or {}),
    }
    refused = sorted(name for name, value in wanted.items() if value)
    if refused:
        raise UnsupportedFeatureError(
            f"This LM does not support {', '.join(refused)}; it knows {', '.join(sorted(SUPPORTED_PARAMS))}."
        )


def response_of(request: Request, completion: Completion) -> Response:
    """Return DSPy's response: usage counts cached prompt tokens as read, `provider_data` carries the latency."""
    return Response(
        id=None,
        model=request.model,
        message=Message.assistant(completion.text),
        finish_reason=completion.finish_reason,
        usage=Usage(
            input_tokens=completion.prompt_tokens,
            output_tokens=completion.completion_tokens,
            cache_read_tokens=completion.prompt_tokens - completion.prompt_tokens_computed,
        ),
        provider_data={
            "latency_s": completion.latency_s,
            "prompt_tokens_computed": completion.prompt_tokens_computed,
            "cached": completion.cached,
        },
    )


@contextmanager
def as_lm15_errors() -> Iterator[None]:
    """Raise promptopt's errors as the ones DSPy expects of an engine; the original stays as their cause."""
    try:
        yield
    except ContextLengthError as error:
        raise Lm15ContextLengthError(str(error)) from error
    except LMError as error:
        # Not a ServerError: DSPy would wait and try again, and a broken local model stays broken.
        raise ProviderError(str(error)) from error
    except (ConfigError, PromptRefusedError) as error:
        # A refused prompt too: asking again, or falling back to a server, gives the same answer.
        raise ConfigurationError(str(error)) from error
    except PromptoptError as error:
        raise LM15Error(str(error)) from error
