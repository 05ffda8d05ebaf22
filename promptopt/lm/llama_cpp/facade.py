"""`LlamaCpp`: a local GGUF model as a `dspy.LM`. The rooms behind it know nothing of DSPy."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import dspy

from promptopt.errors import ConfigError
from promptopt.lm.cache import ResponseCache
from promptopt.lm.llama_cpp.dspy_engine import AsyncLocalEngine, LocalEngine
from promptopt.lm.llama_cpp.local_chat import ChatRequest, LocalChat
from promptopt.lm.llama_cpp.lora import LoraSet, LoraWeights, lora_set, weights_key
from promptopt.lm.llama_cpp.model import LoadOptions
from promptopt.lm.llama_cpp.sampling import Sampling
from promptopt.lm.lm15_bridge import SUPPORTED_PARAMS
from promptopt.lm.lm_call import lm_call, split_settings
from promptopt.lm.protocol import Completion, Messages, TunesModels
from promptopt.user_cache import user_cache_dir


class LlamaCpp(dspy.LM):
    """A GGUF model run in this process by llama.cpp, for DSPy programs and (through `complete_messages`) without DSPy.

    Any number of threads and coroutines may call at once: their requests are computed together, batch by batch, and
    prompts start after the longest beginning that was computed before. Copies share the loaded model. Answers are
    remembered on disk by everything that decides them; DSPy's own response cache is off.

    Beside DSPy's own keyword arguments a call takes `grammar` (GBNF), `min_p` and `repetition_penalty`.

    Args:
        path: a .gguf file with a chat template.
        n_ctx: tokens for prompt and answer together; 0 = what the model was trained for, the upper limit.
        parallel: requests that run at once; None = 16 on a CPU, 64 on a GPU, less where memory is short.
        n_gpu_layers: layers on the GPU; -1 = all, 0 = none.
        n_threads: CPU threads; None = the physical cores this process may use, fewer while other work holds them.
        seed: of the draws at temperature > 0; the same request with the same seed has the same answer.
        max_tokens: of an answer; less if the context has less room.
        temperature: 0 is greedy.
        top_p, top_k, min_p: filters at temperature > 0; 1, 0 and 0 keep all tokens.
        cache_dir: folder of the response cache; "user" = `~/.cache/promptopt/responses` (XDG), None = no cache.
        prefix_reuse: False computes every prompt from its start.
        batch_invariant: True makes answers independent of what else runs, to the last bit, by using only batch sizes
            whose rows agree on this machine; decoding costs more while few requests run. False: answers may differ
            where two tokens are nearly tied (docs/performance.md says how often).
        flash_attention: faster on long prompts (docs/performance.md), with sums in another order than plain
            `llama_cpp.Llama`; None = on a GPU only. Cannot be combined with `batch_invariant`.
        lora: LoRA GGUFs on top of the model: paths, or `LoraWeights` with a scale.
        max_waiting: requests that may wait for a place; a further one waits outside.
        isolated: run the model in a child process. A crash in native code then fails the requests it was computing
            (LMError) instead of ending this process, and the next request starts the model again.
        callbacks: DSPy callbacks.
        provider: what `finetune`, `launch` and `kill` call, e.g. `promptopt.QLoRAProvider`; None = nothing does.

    Raises:
        ModelError: the file is missing, damaged, has no chat template, or llama.cpp cannot run it.
        ConfigError: a sampling setting is out of range.
        MissingExtraError: llama-cpp-python is not installed.
        LMError: the child process of `isolated` died while it loaded the model.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        n_ctx: int = 4096,
        parallel: int | None = None,
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
        batch_invariant: bool = False,
        flash_attention: bool | None = None,
        lora: Iterable[LoraWeights | Path | str] | LoraWeights | Path | str | None = None,
        max_waiting: int = 4096,
        isolated: bool = False,
        callbacks: list[Any] | None = None,
        provider: dspy.Provider | None = None,
    ) -> None:
        path = Path(path)
        defaults = Sampling(temperature, top_p, top_k, min_p, seed)
        options = LoadOptions(n_ctx, n_gpu_layers, n_threads, parallel, max_waiting, batch_invariant, flash_attention)
        weights = lora_set(lora)
        if max_tokens < 1:
            raise ConfigError(f"max_tokens is {max_tokens}; allowed are positive numbers.")
        folder = user_cache_dir() / "responses" if cache_dir == "user" else cache_dir
        cache = None if folder is None else ResponseCache(Path(folder))
        self.chat = LocalChat(path, options, cache=cache, prefix_reuse=prefix_reuse, isolated=isolated)
        self._settings = {
            "path": str(path), "n_ctx": n_ctx, "parallel": parallel, "n_gpu_layers": n_gpu_layers,
            "n_threads": n_threads, "min_p": min_p, "cache_dir": None if cache_dir is None else str(cache_dir),
            "prefix_reuse": prefix_reuse, "batch_invariant": batch_invariant,
            "flash_attention": flash_attention, "max_waiting": max_waiting,
            "isolated": isolated,
        }  # fmt: skip
        engine = LocalEngine(self.chat, defaults, max_tokens, weights)
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
            provider=provider,
            finetuning_model=str(path),
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
    def parallel(self) -> int:
        """Requests that run at once; the evaluation loop keeps this many going."""
        return self.chat.parallel

    @property
    def lora(self) -> LoraSet:
        """The LoRA weights on top of the model."""
        weights: LoraSet = self._engine_spec.lora
        return weights

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the model file; with LoRA weights, theirs and their scales behind it."""
        return "+".join([self.chat.fingerprint, *([weights_key(self.lora)] if self.lora else [])])

    def with_lora(self, lora: Iterable[LoraWeights | Path | str] | LoraWeights | Path | str | None) -> "LlamaCpp":
        """Return this LM with other LoRA weights (None = the bare model), on the same loaded base.

        Both can be used at the same time; their requests take turns, and neither sees the other's cached prompts.

        Raises:
            ModelError: there is no such file; one that does not fit the base fails at the first call.
        """
        mine = self._engine_spec
        engine = LocalEngine(self.chat, mine.defaults, mine.max_tokens, lora_set(lora))
        other: LlamaCpp = self.copy(engine=engine, async_engine=AsyncLocalEngine(engine))
        return other

    def copy(self, **kwargs: Any) -> "LlamaCpp":
        """Return a copy with other settings; as `model` one that `provider` tuned, which then answers with its weights.

        Copies share the loaded base. DSPy calls it with the model that `finetune` made.
        """
        copied: LlamaCpp = super().copy(**kwargs)
        name = kwargs.get("model")
        if name is None or not isinstance(self.provider, TunesModels):
            return copied
        files = self.provider.tuned(name)
        if files is None:
            return copied
        mine = self._engine_spec
        if files.gguf is not None and files.gguf.resolve() != self.chat.path.resolve():
            copied.chat = self.chat.of_file(files.gguf)
            copied._settings = {**self._settings, "path": str(files.gguf)}
        engine = LocalEngine(copied.chat, mine.defaults, mine.max_tokens, lora_set(files.lora))
        copied._engine_spec, copied._async_engine_spec = engine, AsyncLocalEngine(engine)
        copied.finetuning_model = name
        return copied

    def complete_messages(
        self,
        messages: Messages,
        *,
        max_tokens: int | None = None,
        temperature: float | None = None,
        seed: int | None = None,
        stop: Sequence[str] = (),
        grammar: str | None = None,
        timeout_s: float | None = None,
    ) -> Completion:
        """Answer a chat prompt without DSPy; None means this LM's own setting. See `LocalChat.complete`."""
        request = self.chat_request(
            messages, max_tokens=max_tokens, temperature=temperature, seed=seed, stop=stop, grammar=grammar
        )
        return self.chat.complete(request, timeout_s=timeout_s)

    def complete_many(self, prompts: Sequence[Messages], **settings: Any) -> list[Completion]:
        """Answer many chat prompts together; in their order, each common beginning computed once.

        Args:
            settings: those of `complete_messages`, the same for all prompts.
        """
        return self.chat.complete_many([self.chat_request(messages, **settings) for messages in prompts])

    def chat_request(
        self,
        messages: Messages,
        *,
        max_tokens: int | None = None,
        temperature: float | None = None,
        seed: int | None = None,
        stop: Sequence[str] = (),
        grammar: str | None = None,
    ) -> ChatRequest:
        """Return a request with this LM's own settings where they are left open."""
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
        return ChatRequest(messages, room, sampling, tuple(stop), grammar, lora=self.lora)

    def tokenize_messages(self, messages: Messages) -> list[int]:
        """Return the token ids of a chat prompt, as transformers' `apply_chat_template` gives them."""
        return self.chat.tokenize_messages(messages)

    def count_tokens(self, messages: Messages) -> int:
        """Return how many tokens a chat prompt has."""
        return len(self.chat.tokenize_messages(messages))

    def tokenize_text(self, text: str, *, special: bool) -> list[int]:
        """Return the token ids of bare text; `special` says whether control tokens in it are read as such."""
        return self.chat.tokenize(text, special=special)

    def generate_tokens(self, prompt_ids: list[int], max_tokens: int) -> list[int]:
        """Continue token ids greedily, without cache; returns the new ids without the token that ends the turn."""
        return self.chat.generate_tokens(prompt_ids, max_tokens, lora=self.lora)

    def embed(self, texts: Sequence[str], *, normalize: bool = True) -> list[list[float]]:
        """Return a vector per text; `dspy.Embedder(lm.embed)` takes it as it is. See `LocalChat.embed`."""
        return self.chat.embed(texts, normalize=normalize)

    def __call__(self, prompt: Any = None, *, messages: Any = None, **kwargs: Any) -> Any:
        """Answer as every `dspy.LM`; `n` and `rollout_id` draw different answers at temperature > 0."""
        local, kwargs = split_settings(kwargs)
        with self._call(kwargs, local):
            return super().__call__(prompt, messages=messages, **kwargs)

    async def acall(self, prompt: Any = None, *, messages: Any = None, **kwargs: Any) -> Any:
        """Answer asynchronously as every `dspy.LM`."""
        local, kwargs = split_settings(kwargs)
        with self._call(kwargs, local):
            return await super().acall(prompt, messages=messages, **kwargs)

    def _call(self, kwargs: dict[str, Any], local: dict[str, Any]) -> Any:
        asked = {**self.kwargs, **kwargs}
        return lm_call(asked.get("rollout_id"), asked.get("n"), local)

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
        lora = {"lora": [[str(item.path), item.scale] for item in self.lora]} if self.lora else {}
        return {"_dspy_lm_class": f"{type(self).__module__}.{type(self).__qualname__}", **self._settings, **lora, **own}

    @classmethod
    def load_state(cls, state: dict[str, Any], *, allow_custom_lm_class: bool = False) -> "LlamaCpp":
        """Load the model again from `dump_state`'s result."""
        settings = {key: value for key, value in state.items() if not key.startswith("_")}
        weights = [LoraWeights(Path(path), scale) for path, scale in settings.pop("lora", [])]
        return cls(**settings, lora=weights)

    def __reduce__(self) -> tuple[Any, ...]:
        return _load_again, (type(self), self.dump_state())


def _load_again(cls: type[LlamaCpp], state: dict[str, Any]) -> LlamaCpp:
    return cls.load_state(state)


def _first(*values: Any) -> Any:
    """Return the first value that is not None."""
    return next(value for value in values if value is not None)
