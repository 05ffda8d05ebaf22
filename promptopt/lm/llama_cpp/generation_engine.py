"""What `LocalChat` needs of an engine: `GenerationEngine`, kept by `Engine` and by `IsolatedEngine`."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Protocol

from promptopt.lm.llama_cpp.lora import LoraSet
from promptopt.lm.llama_cpp.requests import EngineStats, Generated, GenerationRequest


class GenerationEngine(Protocol):
    """Answers requests on one loaded model; all methods may be called from any thread."""

    @property
    def n_ctx(self) -> int:
        """Tokens that one prompt with its answer may take."""
        ...

    @property
    def parallel(self) -> int:
        """Requests that run at once; more wait."""
        ...

    @property
    def batch_rule(self) -> str:
        """Name of the rule by which answers do not depend on what else runs; "free" where they may."""
        ...

    def submit(
        self, request: GenerationRequest, *, on_text: Callable[[str], None] | None = None, wait: bool = True
    ) -> "Future[Generated]":
        """Queue a request; see `Engine.submit`."""
        ...

    def embed(self, texts: Sequence[Sequence[int]], *, normalize: bool) -> list[list[float]]:
        """Return a vector per text of token ids; see `EmbeddingContext.embed`."""
        ...

    def free_lora(self, lora: LoraSet) -> None:
        """Unload LoRA weights and forget what was computed with them."""
        ...

    def stats(self) -> EngineStats:
        """Return counters since the model was loaded."""
        ...

    def close(self) -> None:
        """Free the model; requests that wait or run end with LMError."""
        ...
