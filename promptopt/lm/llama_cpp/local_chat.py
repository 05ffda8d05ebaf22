"""A loaded model as a chat partner: chat template, engine and response cache together, without DSPy.

Everything that decides an answer goes into its cache key: the prompt's tokens, the model file, LoRA weights, sampling,
grammar, and the rule by which batches were shaped.
"""

import queue
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from promptopt.errors import ConfigError, ContextLengthError, LMError
from promptopt.lm.cache import ResponseCache, cache_key
from promptopt.lm.fingerprint import file_sha256
from promptopt.lm.llama_cpp.batching.prefix_tree import token_key
from promptopt.lm.llama_cpp.chat_template import ChatTemplate
from promptopt.lm.llama_cpp.embedding import embedding_tokens
from promptopt.lm.llama_cpp.engine import Engine
from promptopt.lm.llama_cpp.generation_engine import GenerationEngine
from promptopt.lm.llama_cpp.isolation.isolated import IsolatedEngine
from promptopt.lm.llama_cpp.lora import LoraSet, weights_key
from promptopt.lm.llama_cpp.model import LoadOptions, NativeModel
from promptopt.lm.llama_cpp.pending import PendingCompletion
from promptopt.lm.llama_cpp.requests import EngineStats, Generated, GenerationRequest
from promptopt.lm.llama_cpp.sampling import Sampling
from promptopt.lm.protocol import Completion, Messages

MAX_LOGPROBS = 100


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One prompt with everything that decides its answer.

    Attributes:
        prompt: chat messages, or bare text that is continued as it is (control tokens in it are read as such).
        stop: texts that end the answer and are cut off.
        grammar: GBNF with a rule `root` that the answer follows; None = free.
        logprobs: None = none; n = log probabilities of the generated tokens, with the n likeliest beside each.
        lora: LoRA weights on top of the model.
    """

    prompt: Messages | str
    max_tokens: int
    sampling: Sampling
    stop: tuple[str, ...] = ()
    grammar: str | None = None
    logprobs: int | None = None
    lora: LoraSet = ()

    def __post_init__(self) -> None:
        if self.max_tokens < 1:
            raise ConfigError(f"max_tokens is {self.max_tokens}; allowed are positive numbers.")
        if any(not isinstance(text, str) or not text for text in self.stop):
            raise ConfigError(f"stop is {self.stop!r}; allowed are texts of at least one character.")
        if self.logprobs is not None and not 0 <= self.logprobs <= MAX_LOGPROBS:
            raise ConfigError(f"logprobs is {self.logprobs}; allowed are None and numbers from 0 to {MAX_LOGPROBS}.")


@dataclass(frozen=True, slots=True)
class _Loaded:
    model: NativeModel
    template: ChatTemplate
    engine: GenerationEngine


class LocalChat:
    """A loaded model that answers prompts; thread-safe, and fastest when many are asked at once.

    Args:
        path: a GGUF file with a chat template.
        cache: where answers are remembered; None computes every one.
        prefix_reuse: see `Engine`.
        isolated: run the model in a child process (`IsolatedEngine`); this one loads the vocabulary only.

    Raises:
        ModelError: the file cannot be used (see `NativeModel` and `ChatTemplate`).
        LMError: the child process died while it loaded the model.
    """

    def __init__(
        self,
        path: Path,
        options: LoadOptions,
        *,
        cache: ResponseCache | None = None,
        prefix_reuse: bool = True,
        isolated: bool = False,
    ) -> None:
        self.path = path
        self.options = options
        self.cache = cache
        self._prefix_reuse = prefix_reuse
        self._isolated = isolated
        self._fingerprint: str | None = None
        self._fingerprint_lock = threading.Lock()
        self._loading = threading.Lock()
        self._closed = False
        self._loaded: _Loaded | None = None
        self.load()

    def load(self) -> None:
        """Load the model, unless it is loaded."""
        self._in_memory()

    def unload(self) -> None:
        """Free the model's memory until it is needed again; requests that wait or run end with LMError."""
        with self._loading:
            loaded, self._loaded = self._loaded, None
        if loaded is not None:
            loaded.engine.close()

    def of_file(self, path: Path) -> "LocalChat":
        """Return another model, loaded with the same options."""
        cache = None if self.cache is None else ResponseCache(self.cache.folder)
        return LocalChat(path, self.options, cache=cache, prefix_reuse=self._prefix_reuse, isolated=self._isolated)

    @property
    def engine(self) -> GenerationEngine:
        """What generates."""
        return self._in_memory().engine

    @property
    def model(self) -> NativeModel:
        """Weights and vocabulary; of an isolated engine the vocabulary alone."""
        return self._in_memory().model

    @property
    def template(self) -> ChatTemplate:
        """The model's chat template."""
        return self._in_memory().template

    def _in_memory(self) -> "_Loaded":
        loaded = self._loaded
        if loaded is not None:
            return loaded
        with self._loading:
            if self._closed:
                raise LMError(f"The model {self.path.name} was closed; load it again.")
            if self._loaded is None:
                self._loaded = self._load()
            return self._loaded

    def _load(self) -> "_Loaded":
        model = NativeModel(self.path, self.options, vocab_only=self._isolated)
        try:
            specials = model.vocabulary.special_tokens()
            template = ChatTemplate(model.info.chat_template, specials, model=str(self.path))
            start = IsolatedEngine if self._isolated else Engine
            return _Loaded(model, template, start(model, prefix_reuse=self._prefix_reuse))
        except BaseException:
            model.close()
            raise

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
        return self.engine.n_ctx

    @property
    def parallel(self) -> int:
        """Requests that run at once; more wait."""
        return self.engine.parallel

    def tokenize_messages(self, messages: Messages) -> list[int]:
        """Return the prompt's token ids, equal to transformers' `apply_chat_template(tokenize=True)`.

        Nothing is put in front: a template that wants a beginning-of-sequence token writes it.
        """
        return self.tokenize(self.template.render(messages), special=True)

    def tokenize(self, text: str, *, special: bool) -> list[int]:
        """Return the token ids of bare text; `special` says whether control tokens in it are read as such."""
        return self.model.vocabulary.tokenize(text, special=special)

    def complete(self, request: ChatRequest, *, timeout_s: float | None = None) -> Completion:
        """Answer one request, from the cache if it was answered before.

        If the prompt fits but `max_tokens` more do not, the answer gets the room that is left and may end with finish
        reason "length".

        Raises:
            ContextLengthError: the prompt leaves no room for a single token; nothing was computed.
            ConfigError: llama.cpp cannot compile the grammar.
            RequestTimeoutError: no answer within `timeout_s` seconds; the request was given up.
            LMError: the model broke.
        """
        return self.submit(request).result(timeout_s)

    def submit(self, request: ChatRequest, *, stream: bool = False, wait: bool = True) -> PendingCompletion:
        """Start on a request and return at once.

        Args:
            stream: make the text available piece by piece (`PendingCompletion.stream`).
            wait: where too many requests wait already: wait for room, or raise BusyError.
        """
        return self._submit(request, self._prompt(request), stream=stream, wait=wait)

    def complete_many(self, requests: Sequence[ChatRequest]) -> list[Completion]:
        """Answer many requests; in their order, but computed so that every common beginning is computed once.

        Raises:
            ContextLengthError: a prompt does not fit; nothing was computed.
            LMError: the model broke; the other requests are given up.
        """
        prompts = [self._prompt(request) for request in requests]
        for prompt, request in zip(prompts, requests, strict=True):
            self._room(len(prompt), request.max_tokens)
        # In the order of their tokens, prompts with a common beginning stand together: a walk through the tree.
        order = sorted(range(len(requests)), key=lambda n: (weights_key(requests[n].lora), prompts[n]))
        started: dict[int, PendingCompletion] = {}
        try:
            for number in order:
                started[number] = self._submit(requests[number], prompts[number], stream=False, wait=True)
            return [started[number].result() for number in range(len(requests))]
        except BaseException:
            for pending in started.values():
                pending.cancel()
            raise

    def _prompt(self, request: ChatRequest) -> list[int]:
        if isinstance(request.prompt, str):
            return self.tokenize(request.prompt, special=True)
        return self.tokenize_messages(request.prompt)

    def _submit(self, request: ChatRequest, prompt: list[int], *, stream: bool, wait: bool) -> PendingCompletion:
        room = self._room(len(prompt), request.max_tokens)
        cache = self.cache
        key = self._key(prompt, room, request) if cache is not None else ""

        def finish(made: Generated) -> Completion:
            completion = _completion(made, len(prompt))
            if cache is not None and request.logprobs is None:
                cache.put(key, asdict(completion))
            return completion

        # Log probabilities are bulky and rarely asked for twice: such answers are computed anew.
        if cache is not None and request.logprobs is None and (found := cache.get(key)) is not None:
            known = Completion(**{**found, "prompt_tokens_computed": 0, "cached": True})
            return PendingCompletion(None, finish, known=known)
        job = GenerationRequest(
            prompt, room, request.sampling, request.stop, request.grammar, request.logprobs, request.lora
        )
        pieces: queue.SimpleQueue[str | None] | None = queue.SimpleQueue() if stream else None
        future = self.engine.submit(job, on_text=None if pieces is None else pieces.put, wait=wait)
        return PendingCompletion(future, finish, pieces=pieces)

    def generate_tokens(self, prompt: Sequence[int], max_tokens: int, *, lora: LoraSet = ()) -> list[int]:
        """Continue token ids greedily; the ids of the answer without the token that ends it. Never cached."""
        return self.generate_many([prompt], max_tokens, lora=lora)[0]

    def generate_many(
        self, prompts: Sequence[Sequence[int]], max_tokens: int, *, lora: LoraSet = ()
    ) -> list[list[int]]:
        """Continue several prompts of token ids greedily, all at once; never cached."""
        rooms = [self._room(len(prompt), max_tokens) for prompt in prompts]
        order = sorted(range(len(prompts)), key=lambda n: token_key(prompts[n]))
        futures = {n: self.engine.submit(GenerationRequest(prompts[n], rooms[n], Sampling(), lora=lora)) for n in order}
        return [list(futures[n].result().tokens) for n in range(len(prompts))]

    def embed(self, texts: Sequence[str], *, normalize: bool = True) -> list[list[float]]:
        """Return a vector per text: the mean of the hidden states, unless the model names another pooling.

        Raises:
            ContextLengthError: a text is too long for one pass.
            ModelError: the model cannot embed.
        """
        return self.engine.embed([embedding_tokens(self.model, text) for text in texts], normalize=normalize)

    def free_lora(self, lora: LoraSet) -> None:
        """Unload LoRA weights and forget what was computed with them; they are loaded again when asked for."""
        self.engine.free_lora(lora)

    def stats(self) -> EngineStats:
        """Return the engine's counters."""
        return self.engine.stats()

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
        parts: dict[str, Any] = {
            "engine": f"llama-cpp-python {self.model.lib.__version__}",
            "batch": self.engine.batch_rule,
            "model": self.fingerprint,
            "chat_template": self.template.source,
            "prompt": prompt,
            "max_tokens": room,
            "stop": list(request.stop),
            "sampling": request.sampling.cache_key(),
        }
        # Absent where they are not used, so that answers remembered by earlier versions stay valid.
        if request.grammar is not None:
            parts["grammar"] = request.grammar
        if self.model.flash_attention:
            parts["flash_attention"] = True
        if request.lora:
            parts["lora"] = weights_key(request.lora)
        return cache_key(parts)

    def close(self) -> None:
        """Free the model and close the cache; later requests raise LMError."""
        with self._loading:
            self._closed = True
        if self._loaded is not None:
            self._loaded.engine.close()
        if self.cache is not None:
            self.cache.close()

    def __deepcopy__(self, memo: dict[int, Any]) -> "LocalChat":
        # A copy of a program must not load the model again.
        return self


def _completion(made: Generated, n_prompt: int) -> Completion:
    return Completion(
        text=made.text,
        finish_reason=made.finish_reason,
        prompt_tokens=n_prompt,
        prompt_tokens_computed=made.prompt_tokens_computed,
        completion_tokens=len(made.tokens),
        latency_s=made.latency_s,
        cached=False,
        logprobs=made.logprobs,
    )
