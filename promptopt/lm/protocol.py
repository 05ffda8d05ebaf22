"""What the evaluator needs from a language model: `ChatLM`, what it gets back, and who tunes it: `TunesModels`.

Knows no engine, no server and not DSPy; `promptopt.lm.dspy_chat.as_chat_lm` turns any `dspy.LM` into a `ChatLM`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

FinishReason = Literal["stop", "length"]
Messages = Sequence[dict[str, str]]
"""A chat prompt: `{"role": "system" | "user" | "assistant", "content": text}`; a last assistant message goes on."""


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """How likely one generated token was.

    Attributes:
        token: its id.
        text: the token as text; bytes that are no whole character show as U+FFFD.
        data: its bytes.
        logprob: natural logarithm of its probability at temperature 1, before any filter, penalty or grammar.
        top: the likeliest tokens at this position, best first; their own `top` is empty.
    """

    token: int
    text: str
    data: bytes
    logprob: float
    top: tuple["TokenLogprob", ...] = ()


@dataclass(frozen=True, slots=True)
class Completion:
    """One answer of a language model.

    Attributes:
        text: what was generated, without the prompt, a prefill, the stop string or end-of-turn tokens.
        finish_reason: "stop" (the model ended its turn or wrote a stop string) or "length" (no room was left).
        prompt_tokens: tokens of the whole prompt.
        prompt_tokens_computed: those of them that were computed for this call; 0 where `cached`.
        completion_tokens: generated tokens, without the token that ends the turn.
        latency_s: seconds from submission to answer. A cached answer keeps the latency of the call that made it.
        cached: whether the answer came from the response cache.
        logprobs: one entry per generated token, where they were asked for.
    """

    text: str
    finish_reason: FinishReason
    prompt_tokens: int
    prompt_tokens_computed: int
    completion_tokens: int
    latency_s: float
    cached: bool
    logprobs: tuple[TokenLogprob, ...] | None = None


@dataclass(frozen=True, slots=True)
class TunedFiles:
    """The files of a model that was tuned.

    Attributes:
        gguf: the model; None = the base that was tuned.
        lora: LoRA GGUFs on top of it.
    """

    gguf: Path | None = None
    lora: tuple[Path, ...] = ()


@runtime_checkable
class TunesModels(Protocol):
    """What tunes models and knows them by name again."""

    def tuned(self, model: str) -> TunedFiles | None:
        """Return the files of the model that was tuned under this name; None for any other name."""
        ...


@runtime_checkable
class ChatLM(Protocol):
    """A language model that answers chat prompts; safe to call from several threads."""

    @property
    def name(self) -> str:
        """What reports call the model."""
        ...

    @property
    def n_ctx(self) -> int | None:
        """Tokens that fit into one prompt with its answer; None where a server does not say."""
        ...

    @property
    def fingerprint(self) -> str:
        """Hex digest that changes whenever the model behind it may answer differently."""
        ...

    def complete_messages(
        self,
        messages: Messages,
        *,
        max_tokens: int | None = None,
        temperature: float | None = None,
        seed: int | None = None,
        stop: Sequence[str] = (),
    ) -> Completion:
        """Answer `messages`; None means the model's own setting.

        Raises:
            ContextLengthError: the prompt does not fit.
            LMError: the model broke. A breakdown never becomes an empty answer.
        """
        ...

    def count_tokens(self, messages: Messages) -> int:
        """Return the tokens of the prompt (an estimate where the tokenizer is out of reach)."""
        ...
