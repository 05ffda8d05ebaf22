"""Between DSPy's canonical requests and promptopt's chat prompts: the only file that knows both shapes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from dspy.lm15 import (
    ConfigurationError,
    LM15Error,
    Message,
    ProviderError,
    Request,
    Response,
    StreamDeltaEvent,
    StreamEndEvent,
    StreamStartEvent,
    TextDelta,
    TopLogprob,
    UnsupportedFeatureError,
    Usage,
)
from dspy.lm15 import ContextLengthError as Lm15ContextLengthError
from dspy.lm15 import TokenLogprob as Lm15TokenLogprob

from promptopt.errors import ConfigError, ContextLengthError, LMError, PromptoptError, PromptRefusedError
from promptopt.lm.lm_call import LOCAL_SETTINGS, current_call
from promptopt.lm.protocol import Completion, TokenLogprob

SUPPORTED_PARAMS = frozenset(
    {
        "max_tokens", "temperature", "top_p", "top_k", "seed", "stop", "response_format", "logprobs",
        "frequency_penalty", "presence_penalty",
    }
)  # fmt: skip


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
    extensions = dict(config.extensions or {})
    wanted = {
        "tools": request.tools,
        "reasoning": config.reasoning,
        "probabilities": config.probabilities not in (None, "off", "if_available"),
        **{name: value for name, value in extensions.items() if name not in LOCAL_SETTINGS},
    }
    refused = sorted(name for name, value in wanted.items() if value)
    if refused:
        known = ", ".join(sorted(SUPPORTED_PARAMS | LOCAL_SETTINGS))
        raise UnsupportedFeatureError(f"This LM does not support {', '.join(refused)}; it knows {known}.")


def local_settings(request: Request) -> dict[str, Any]:
    """Return grammar, min_p and repetition_penalty, from the request's extensions or the LM call around it."""
    extensions = {key: value for key, value in (request.config.extensions or {}).items() if key in LOCAL_SETTINGS}
    return {**current_call().settings, **extensions}


def response_of(request: Request, completion: Completion) -> Response:
    """Return DSPy's response: usage counts cached prompt tokens as read, `provider_data` carries the latency."""
    return Response(
        id=None,
        model=request.model,
        message=Message.assistant(completion.text),
        finish_reason=completion.finish_reason,
        usage=usage_of(completion),
        logprobs=None if completion.logprobs is None else tuple(_logprob(entry) for entry in completion.logprobs),
        provider_data=provider_data_of(completion),
    )


def usage_of(completion: Completion) -> Usage:
    """Return DSPy's token counts."""
    return Usage(
        input_tokens=completion.prompt_tokens,
        output_tokens=completion.completion_tokens,
        cache_read_tokens=completion.prompt_tokens - completion.prompt_tokens_computed,
    )


def provider_data_of(completion: Completion) -> dict[str, Any]:
    """Return what DSPy has no field for."""
    return {
        "latency_s": completion.latency_s,
        "prompt_tokens_computed": completion.prompt_tokens_computed,
        "cached": completion.cached,
    }


def _logprob(entry: TokenLogprob) -> Lm15TokenLogprob:
    return Lm15TokenLogprob(
        token=entry.text,
        logprob=entry.logprob,
        bytes=tuple(entry.data),
        token_id=entry.token,
        top=tuple(TopLogprob(top.text, top.logprob, tuple(top.data), top.token) for top in entry.top),
    )


def events_of(request: Request, pieces: Iterator[str], result: Callable[[], Completion]) -> Iterator[Any]:
    """Yield DSPy's stream events of an answer that arrives in pieces."""
    yield StreamStartEvent(id=None, model=request.model)
    for piece in pieces:
        yield StreamDeltaEvent(delta=TextDelta(text=piece, part_index=0))
    completion = result()
    yield StreamEndEvent(
        finish_reason=completion.finish_reason, usage=usage_of(completion), provider_data=provider_data_of(completion)
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
