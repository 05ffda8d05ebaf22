"""What the server needs from a model: `ServedModel`, which `LocalChat` is, and what a request in the works looks like.

Knows neither HTTP nor llama.cpp, so a test can serve something else.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from typing import Protocol

from promptopt.lm.llama_cpp.local_chat import ChatRequest
from promptopt.lm.protocol import Completion


class PendingAnswer(Protocol):
    """A request that was handed in."""

    @property
    def future(self) -> "Future[Completion]":
        """Ends with the answer, or with the error that the request ended with."""
        ...

    def result(self) -> Completion:
        """Wait for the answer; raises the error that the request ended with."""
        ...

    def stream(self) -> Iterator[str]:
        """Yield the answer's text piece by piece, if that was asked for; blocks between pieces."""
        ...

    def cancel(self) -> object:
        """Give the request up and free what it holds; harmless where it has ended."""
        ...


class ModelStats(Protocol):
    """What a model has done since it was loaded, and what it is doing."""

    @property
    def requests_done(self) -> int: ...  # noqa: D102
    @property
    def requests_failed(self) -> int: ...  # noqa: D102
    @property
    def requests_running(self) -> int: ...  # noqa: D102
    @property
    def requests_waiting(self) -> int: ...  # noqa: D102
    @property
    def prompt_tokens(self) -> int: ...  # noqa: D102
    @property
    def prompt_tokens_computed(self) -> int: ...  # noqa: D102
    @property
    def completion_tokens(self) -> int: ...  # noqa: D102
    @property
    def decode_seconds(self) -> float: ...  # noqa: D102
    @property
    def busy_seconds(self) -> float: ...  # noqa: D102


class ServedModel(Protocol):
    """A model that answers many requests at once; all methods may be called from any thread."""

    @property
    def n_ctx(self) -> int:
        """Tokens that fit into one prompt with its answer."""
        ...

    @property
    def parallel(self) -> int:
        """Requests that run at once; further ones wait."""
        ...

    def submit(self, request: ChatRequest, *, stream: bool = False, wait: bool = True) -> PendingAnswer:
        """Hand a request in without waiting for its answer.

        Args:
            stream: make `PendingAnswer.stream` possible.
            wait: where too many requests wait already, wait for room; else raise BusyError.

        Raises:
            ConfigError: a setting of the request is wrong.
            ContextLengthError: the prompt does not fit.
            PromptRefusedError: the chat template refuses the messages.
            BusyError: too many requests wait already.
            LMError: the model broke or was closed.
        """
        ...

    def embed(self, texts: Sequence[str], *, normalize: bool = True) -> list[list[float]]:
        """Return one vector per text.

        Raises:
            ContextLengthError: a text does not fit.
            ModelError: the model cannot embed.
        """
        ...

    def tokenize(self, text: str, *, special: bool) -> list[int]:
        """Return the token ids of bare text."""
        ...

    def stats(self) -> ModelStats:
        """Return the counters."""
        ...
