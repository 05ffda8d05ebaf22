"""`LlamaCpp`: a local GGUF model as a `dspy.LM`. The rooms behind it know nothing of DSPy."""

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import dspy
from dspy.lm15 import Request, Response, response_to_events

from promptopt.errors import ConfigError
from promptopt.lm.cache import ResponseCache
from promptopt.lm.collect import note_call
from promptopt.lm.llama_cpp.local_chat import ChatRequest, LocalChat
from promptopt.lm.llama_cpp.model import LoadOptions
from promptopt.lm.llama_cpp.sampling import Sampling
from promptopt.lm.lm15_bridge import (
    SUPPORTED_PARAMS,
    as_lm15_errors,
    counting_draws,
    drawn_seed,
    messages_of,
    response_of,
)
from promptopt.lm.protocol import Completion, Messages
from promptopt.lm.user_cache import user_cache_dir


class LocalEngine:
    """DSPy's engine interface on a `LocalChat`; what a request leaves open comes from `defaults`."""

    supported_params = SUPPORTED_PARAMS

    def __init__(self, chat: LocalChat, defaults: Sampling, max_tokens: int) -> None:
        self.chat = chat
        self.defaults = defaults
        self.max_tokens = max_tokens

    def complete(self, request: Request) -> Response:
        """Answer one canonical request; raises dspy.lm15 errors."""
        with as_lm15_errors():
            config, defaults = request.config, self.defaults
            sampling = Sampling(
                temperature=defaults.temperature if config.temperature is None else config.temperature,
                top_p=defaults.top_p if config.top_p is None else config.top_p,
                top_k=defaults.top_k if config.top_k is None else config.top_k,
                min_p=defaults.min_p,
                seed=drawn_seed(defaults.seed if config.seed is None else config.seed),
            )
            wanted = ChatRequest(messages_of(request), config.max_tokens or self.max_tokens, sampling, config.stop)
            completion = self.chat.complete(wanted)
            note_call(completion)
            return response_of(request, completion)

    def stream(self, request: Request) -> Iterator[Any]:
        """Answer in one piece: an answer is only complete when its stop string is known."""
        return iter(response_to_events(self.complete(request)))

    def close(self) -> None:
        """DSPy borrows engines; `LlamaCpp.close` frees the model."""

    def __deepcopy__(self, memo: dict[int, Any]) -> "LocalEngine":
        return self


class AsyncLocalEngine:
    """The same for `acall`: the wait happens on a thread, so the event loop stays free."""

    supported_params = SUPPORTED_PARAMS

    def __init__(self, engine: LocalEngine) -> None:
        self._engine = engine

    async def complete(self, request: Request) -> Response:
        """Answer one canonical request."""
        return await asyncio.to_thread(self._engine.complete, request)

    async def stream(self, request: Request) -> Any:
        """Answer in one piece, as the synchronous engine does."""
        for event in response_to_events(await self.complete(request)):
            yield event

    async def aclose(self) -> None:
        """See `LocalEngine.close`."""

    def __deepcopy__(self, memo: dict[int, Any]) -> "AsyncLocalEngine":
        return self


class LlamaCpp(dspy.LM):
    """A GGUF model run in this process by llama.cpp, for DSPy programs and (through `complete_messages`) without DSPy.

    Safe to call from many threads. Copies share the loaded model. Answers are remembered on disk by everything that
    decides them; DSPy's own response cache is off. Prompts start from the resident prompt they share most with; on the
    CPU that changes no bit of the answer (see `slots`), on a GPU rounding may differ where tokens are nearly tied.

    Args:
        path: a .gguf file with a chat template.
        n_ctx: tokens for prompt and answer together; 0 = what the model was trained for, the upper limit.
        n_gpu_layers: layers on the GPU; -1 = all, 0 = none.
        n_threads: CPU threads; None = the physical cores this process may use.
        seed: of the draws at temperature > 0; the same request with the same seed has the same answer.
        max_tokens: of an answer; less if the context has less room.
        temperature: 0 is greedy.
        top_p, top_k, min_p: filters at temperature > 0; 1, 0 and 0 keep all tokens.
        cache_dir: folder of the response cache; "user" = `~/.cache/promptopt/responses` (XDG), None = no cache.
        prefix_reuse: False computes every prompt from its start.
        n_slots: prompts that stay resident; None = up to 4, within 2 GiB of memory.
        callbacks: DSPy callbacks.

    Raises:
        ModelError: the file is missing, damaged, has no chat template, or llama.cpp cannot run it.
        ConfigError: a sampling setting is out of range.
        MissingExtraError: llama-cpp-python is not installed.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        n_ctx: int = 4096,
        n_gpu_layers: int = 0,
        n_threads: int | None = None,
        seed: int = 0,
        max_tokens: int = 256,
        temperature: float = 0.0,
        top_p: float = 1.0,
        top_k: int = 0,
        min_p: float = 0.0,
        cache_dir: Path | str | Literal["user"] | None = "user",
        prefix_reuse: bool = True,
        n_slots: int | None = None,
        callbacks: list[Any] | None = None,
    ) -> None:
        path = Path(path)
        defaults = Sampling(temperature, top_p, top_k, min_p, seed)
        options = LoadOptions(n_ctx, n_gpu_layers, n_threads, n_slots)
        if max_tokens < 1:
            raise ConfigError(f"max_tokens is {max_tokens}; allowed are positive numbers.")
        folder = user_cache_dir() / "responses" if cache_dir == "user" else cache_dir
        cache = None if folder is None else ResponseCache(Path(folder))
        self.chat = LocalChat(path, options, cache=cache, prefix_reuse=prefix_reuse)
        self._settings = {
            "path": str(path), "n_ctx": n_ctx, "n_gpu_layers": n_gpu_layers, "n_threads": n_threads, "min_p": min_p,
            "cache_dir": None if cache_dir is None else str(cache_dir), "prefix_reuse": prefix_reuse,
            "n_slots": n_slots,
        }  # fmt: skip
        engine = LocalEngine(self.chat, defaults, max_tokens)
        # DSPy keeps a setting that is in `kwargs` through `lm.copy(seed=...)`; its validation refuses top_k=0.
        filters = {"top_p": top_p} if top_p < 1 else {}
        filters |= {"top_k": top_k} if top_k > 0 else {}
        super().__init__(
            f"llama_cpp/{path.name}",
            temperature=temperature,
            max_tokens=max_tokens,
            cache=False,
            num_retries=0,
            callbacks=callbacks,
            engine=engine,
            async_engine=AsyncLocalEngine(engine),
            seed=seed,
            **filters,
        )

    @property
    def name(self) -> str:
        """File name of the model."""
        return self.chat.path.name

    @property
    def n_ctx(self) -> int:
        """Tokens that one prompt with its answer may take."""
        return self.chat.n_ctx

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the model file."""
        return self.chat.fingerprint

    def complete_messages(
        self,
        messages: Messages,
        *,
        max_tokens: int | None = None,
        temperature: float | None = None,
        seed: int | None = None,
        stop: Sequence[str] = (),
    ) -> Completion:
        """Answer a chat prompt without DSPy; None means this LM's own setting. See `LocalChat.complete`."""
        own = self.kwargs
        defaults: Sampling = self._engine_spec.defaults
        sampling = Sampling(
            temperature=_first(temperature, own.get("temperature"), defaults.temperature),
            top_p=_first(own.get("top_p"), defaults.top_p),
            top_k=_first(own.get("top_k"), defaults.top_k),
            min_p=defaults.min_p,
            seed=_first(seed, own.get("seed"), defaults.seed),
        )
        room = _first(max_tokens, own.get("max_tokens"), self._engine_spec.max_tokens)
        return self.chat.complete(ChatRequest(messages, room, sampling, tuple(stop)))

    def tokenize_messages(self, messages: Messages) -> list[int]:
        """Return the token ids of a chat prompt, as transformers' `apply_chat_template` gives them."""
        return self.chat.tokenize_messages(messages)

    def count_tokens(self, messages: Messages) -> int:
        """Return how many tokens a chat prompt has."""
        return len(self.chat.tokenize_messages(messages))

    def tokenize_text(self, text: str, *, special: bool) -> list[int]:
        """Return the token ids of bare text; `special` says whether control tokens in it are read as such."""
        return self.chat.model.tokenize(text, special=special)

    def generate_tokens(self, prompt_ids: list[int], max_tokens: int) -> list[int]:
        """Continue token ids greedily, without cache; returns the new ids without the token that ends the turn."""
        return self.chat.generate_tokens(prompt_ids, max_tokens)

    def __call__(self, prompt: Any = None, *, messages: Any = None, **kwargs: Any) -> Any:
        """Answer as every `dspy.LM`; `n` and `rollout_id` draw different answers at temperature > 0."""
        with counting_draws(kwargs.get("rollout_id", self.kwargs.get("rollout_id"))):
            return super().__call__(prompt, messages=messages, **kwargs)

    async def acall(self, prompt: Any = None, *, messages: Any = None, **kwargs: Any) -> Any:
        """Answer asynchronously as every `dspy.LM`."""
        with counting_draws(kwargs.get("rollout_id", self.kwargs.get("rollout_id"))):
            return await super().acall(prompt, messages=messages, **kwargs)

    def close(self) -> None:
        """Free the model, for all copies of this LM; later calls raise an error."""
        super().close()
        self.chat.close()

    def __deepcopy__(self, memo: dict[int, Any]) -> "LlamaCpp":
        copied: LlamaCpp = self.copy()
        return copied

    def dump_state(self) -> dict[str, Any]:
        """Return what `load_state` needs: the path and settings, not the weights."""
        own = {key: value for key, value in self.kwargs.items() if key in SUPPORTED_PARAMS}
        return {"_dspy_lm_class": f"{type(self).__module__}.{type(self).__qualname__}", **self._settings, **own}

    @classmethod
    def load_state(cls, state: dict[str, Any], *, allow_custom_lm_class: bool = False) -> "LlamaCpp":
        """Load the model again from `dump_state`'s result."""
        return cls(**{key: value for key, value in state.items() if not key.startswith("_")})

    def __reduce__(self) -> tuple[Any, ...]:
        return _load_again, (type(self), self.dump_state())


def _load_again(cls: type[LlamaCpp], state: dict[str, Any]) -> LlamaCpp:
    return cls.load_state(state)


def _first(*values: Any) -> Any:
    """Return the first value that is not None."""
    return next(value for value in values if value is not None)
