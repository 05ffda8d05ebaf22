"""Any `dspy.LM` (an OpenAI-compatible server, say) as a `ChatLM`. Knows no engine of promptopt's own."""

import hashlib
import json
import time
from collections.abc import Sequence
from typing import Any

import dspy
from dspy.lm15 import Config, Message, Request, Response
from dspy.utils.exceptions import ContextWindowExceededError

from promptopt.errors import ConfigError, ContextLengthError, LMError
from promptopt.lm.protocol import ChatLM, Completion, FinishReason, Messages

BYTES_PER_TOKEN = 4
"""Rough average of English; only used where the server's tokenizer is out of reach."""

_SECRET = ("key", "token", "secret", "headers")


class DspyChatLM:
    """A `dspy.LM` behind the `ChatLM` protocol.

    Args:
        lm: its `kwargs` (temperature, max_tokens, ...) hold wherever a call leaves them open.
        n_ctx: tokens that fit into its context, if known.
    """

    def __init__(self, lm: dspy.BaseLM, *, n_ctx: int | None = None) -> None:
        self.lm = lm
        self._n_ctx = n_ctx

    @property
    def name(self) -> str:
        """DSPy's model string, e.g. "openai/qwen2.5-7b"."""
        return str(self.lm.model)

    @property
    def n_ctx(self) -> int | None:
        """As given; a server does not say."""
        return self._n_ctx

    @property
    def fingerprint(self) -> str:
        """Digest of the model string and its settings (no secrets); a server may still change its weights."""
        settings = {k: repr(v) for k, v in self.lm.kwargs.items() if not any(part in k.lower() for part in _SECRET)}
        text = json.dumps([self.lm.model, self.lm.model_type, settings], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def count_tokens(self, messages: Messages) -> int:
        """Estimate the prompt's tokens as a quarter of its bytes: the server's tokenizer is out of reach."""
        n_bytes = sum(len(message["content"].encode("utf-8")) for message in messages)
        return -(-n_bytes // BYTES_PER_TOKEN)

    def complete_messages(
        self,
        messages: Messages,
        *,
        max_tokens: int | None = None,
        temperature: float | None = None,
        seed: int | None = None,
        stop: Sequence[str] = (),
    ) -> Completion:
        """Answer a chat prompt through DSPy, with its retries and cache.

        Raises:
            ContextLengthError: the server says that the prompt is too long.
            LMError: the server failed or refused; never an empty answer.
        """
        asked = {"max_tokens": max_tokens, "temperature": temperature, "seed": seed, "stop": tuple(stop) or None}
        request = self._request(messages, {key: value for key, value in asked.items() if value is not None})
        started = time.perf_counter()
        try:
            response = self.lm(request)
        except ContextWindowExceededError as error:
            raise ContextLengthError(f"{self.name}: {error} Shorten the prompt or the demos.") from error
        except Exception as error:
            raise LMError(f"{self.name} failed: {type(error).__name__}: {error}") from error
        return self._completion(response, time.perf_counter() - started)

    def _request(self, messages: Messages, asked: dict[str, Any]) -> Request:
        """Build DSPy's canonical request, with the LM's own settings: DSPy adds none to an explicit request."""
        if not messages:
            raise ConfigError("The prompt has no messages; at least one user message is needed.")
        known = ("max_tokens", "temperature", "top_p", "top_k", "seed", "stop", "frequency_penalty", "presence_penalty")
        own = {key: self.lm.kwargs[key] for key in known if self.lm.kwargs.get(key) is not None}
        if self.lm.kwargs.get("max_completion_tokens") is not None:
            own["max_tokens"] = self.lm.kwargs["max_completion_tokens"]
        first_is_system = messages[0]["role"] == "system"
        make = {"user": Message.user, "assistant": Message.assistant, "system": Message.developer}
        return Request(
            model=self.lm.model,
            system=messages[0]["content"] if first_is_system else None,
            messages=tuple(make[m["role"]](m["content"]) for m in messages[int(first_is_system) :]),
            config=Config(**{**own, **asked}),
        )

    def _completion(self, response: Response, seconds: float) -> Completion:
        if response.finish_reason in ("error", "tool_call", "content_filter"):
            raise LMError(
                f"{self.name} ended with finish reason {response.finish_reason!r} instead of an answer "
                f"(text: {response.text!r}). Look at the server's log."
            )
        usage, data = response.usage, response.provider_data or {}
        prompt_tokens = usage.input_tokens or 0
        reason: FinishReason = "length" if response.finish_reason == "length" else "stop"
        return Completion(
            text=response.text or "",
            finish_reason=reason,
            prompt_tokens=prompt_tokens,
            prompt_tokens_computed=prompt_tokens - min(prompt_tokens, usage.cache_read_tokens or 0),
            completion_tokens=usage.output_tokens or 0,
            latency_s=float(data.get("latency_s", seconds)),
            cached=bool(data.get("cached", False)),
        )


def as_chat_lm(lm: Any) -> ChatLM:
    """Return `lm` itself if it is a `ChatLM` (`LlamaCpp`, `ScriptedLM`), or a `dspy.LM` wrapped into one.

    Raises:
        ConfigError: it is neither.
    """
    if isinstance(lm, dspy.BaseLM) and not hasattr(lm, "complete_messages"):
        return DspyChatLM(lm)
    if hasattr(lm, "complete_messages") and hasattr(lm, "count_tokens"):
        chat: ChatLM = lm
        return chat
    raise ConfigError(
        f"{type(lm).__name__} is no language model; allowed are promptopt's LlamaCpp, ScriptedLM, any dspy.LM, and "
        "objects with the methods of promptopt.lm.protocol.ChatLM."
    )
