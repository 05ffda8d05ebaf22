"""Chat prompts on a local GGUF, without DSPy: template, tokens, response cache, engine. `LlamaCpp` is its DSPy face.

One `LocalChat` owns one loaded model; copies of the LM share it.
"""

import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from promptopt.errors import ConfigError, ContextLengthError
from promptopt.lm.cache import ResponseCache, cache_key
from promptopt.lm.fingerprint import file_sha256
from promptopt.lm.llama_cpp.chat_template import ChatTemplate
from promptopt.lm.llama_cpp.engine import Engine, GenerationRequest
from promptopt.lm.llama_cpp.model import LoadOptions, NativeModel
from promptopt.lm.llama_cpp.sampling import Sampling
from promptopt.lm.protocol import Completion, Messages


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One chat prompt with everything that decides its answer."""

    messages: Messages
    max_tokens: int
    sampling: Sampling
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.max_tokens < 1:
            raise ConfigError(f"max_tokens is {self.max_tokens}; allowed are positive numbers.")
        if any(not isinstance(text, str) or not text for text in self.stop):
            raise ConfigError(f"stop is {self.stop!r}; allowed are texts of at least one character.")


class LocalChat:
    """A loaded model that answers chat prompts; thread-safe.

    Args:
        path: a GGUF file with a chat template.
        cache: where answers are remembered; None computes every one.
        prefix_reuse: see `Engine`.

    Raises:
        ModelError: the file cannot be used (see `NativeModel` and `ChatTemplate`).
    """

    def __init__(
        self, path: Path, options: LoadOptions, *, cache: ResponseCache | None = None, prefix_reuse: bool = True
    ) -> None:
        self.path = path
        self.options = options
        self.cache = cache
        self._fingerprint: str | None = None
        self._fingerprint_lock = threading.Lock()
        model = NativeModel(path, options)
        try:
            self.template = ChatTemplate(model.info.chat_template, model.special_tokens(), model=str(path))
        except BaseException:
            model.close()
            raise
        self.model = model
        self.engine = Engine(model, prefix_reuse=prefix_reuse)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the model file."""
        with self._fingerprint_lock:
            if self._fingerprint is None:
                self._fingerprint = file_sha256(self.path)
            return self._fingerprint

    @property
    def n_ctx(self) -> int:
        """Tokens that one prompt with its answer may take."""
        return self.model.n_ctx

    def tokenize_messages(self, messages: Messages) -> list[int]:
        """Return the prompt's token ids, equal to transformers' `apply_chat_template(tokenize=True)`.

        Nothing is put in front: a template that wants a beginning-of-sequence token writes it.
        """
        return self.model.tokenize(self.template.render(messages), special=True)

    def complete(self, request: ChatRequest) -> Completion:
        """Answer one request, from the cache if it was answered before.

        If the prompt fits but `max_tokens` more do not, the answer gets the room that is left and may end with finish
        reason "length".

        Raises:
            ContextLengthError: the prompt leaves no room for a single token; nothing was computed.
            LMError: the model broke.
        """
        prompt = self.tokenize_messages(request.messages)
        room = self._room(len(prompt), request.max_tokens)
        key = self._key(prompt, room, request) if self.cache is not None else ""
        if self.cache is not None and (found := self.cache.get(key)) is not None:
            return Completion(**{**found, "prompt_tokens_computed": 0, "cached": True})
        job = GenerationRequest(prompt, room, request.sampling, request.stop)
        made = self.engine.submit(job).result()
        completion = Completion(
            text=made.text,
            finish_reason=made.finish_reason,
            prompt_tokens=len(prompt),
            prompt_tokens_computed=made.prompt_tokens_computed,
            completion_tokens=len(made.tokens),
            latency_s=made.latency_s,
            cached=False,
        )
        if self.cache is not None:
            self.cache.put(key, asdict(completion))
        return completion

    def generate_tokens(self, prompt: Sequence[int], max_tokens: int) -> list[int]:
        """Continue token ids greedily; the ids of the answer without the token that ends it. Never cached."""
        room = self._room(len(prompt), max_tokens)
        return list(self.engine.submit(GenerationRequest(prompt, room, Sampling())).result().tokens)

    def _room(self, n_prompt: int, max_tokens: int) -> int:
        if n_prompt == 0:
            raise ConfigError("The prompt has no tokens; at least one is needed.")
        room = self.n_ctx - n_prompt
        if room < 1:
            raise ContextLengthError(
                f"The prompt has {n_prompt} tokens and the context of {self.path.name} holds {self.n_ctx}, of which at "
                "least one is the answer's. Shorten the prompt (fewer or shorter demos), or load the model with a "
                f"larger n_ctx (it was trained for {self.model.info.n_ctx_train})."
            )
        return min(max_tokens, room)

    def _key(self, prompt: list[int], room: int, request: ChatRequest) -> str:
        return cache_key(
            {
                "engine": f"llama-cpp-python {self.model.lib.__version__}",
                "model": self.fingerprint,
                "chat_template": self.template.source,
                "prompt": prompt,
                "max_tokens": room,
                "stop": list(request.stop),
                "sampling": request.sampling.cache_key(),
            }
        )

    def close(self) -> None:
        """Free the model and close the cache; later requests raise LMError."""
        self.engine.close()
        if self.cache is not None:
            self.cache.close()

    def __deepcopy__(self, memo: dict[int, Any]) -> "LocalChat":
        # A copy of a program must not load the model again.
        return self
