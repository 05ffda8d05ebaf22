"""`ScriptedLM`: a `dspy.LM` that replays recorded completions and remembers what it was asked. For tests; no model."""

import hashlib
import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dspy
from dspy.lm15 import Request, Response, response_to_events

from promptopt.errors import ConfigError, ContextLengthError, LMError
from promptopt.lm.collect import note_call
from promptopt.lm.lm15_bridge import SUPPORTED_PARAMS, as_lm15_errors, messages_of, response_of
from promptopt.lm.protocol import Completion, Messages

Script = Sequence[str | Exception] | Mapping[str, str | Exception] | Callable[[Messages], str]


@dataclass(frozen=True, slots=True)
class ScriptedRequest:
    """One request a `ScriptedLM` received; None = left open."""

    messages: tuple[dict[str, str], ...]
    max_tokens: int | None
    temperature: float | None
    seed: int | None
    stop: tuple[str, ...]


class _Player:
    """Finds the answer to each request; shared by all copies of one `ScriptedLM`."""

    def __init__(self, script: Script, n_ctx: int) -> None:
        self.script = script
        self.n_ctx = n_ctx
        self.requests: list[ScriptedRequest] = []
        self._given = 0
        self._lock = threading.Lock()

    def answer(self, request: ScriptedRequest) -> Completion:
        started = time.perf_counter()
        n_prompt = count_words(request.messages)
        if n_prompt + 1 > self.n_ctx:
            raise ContextLengthError(f"The prompt has {n_prompt} tokens (words); n_ctx is {self.n_ctx}. Shorten it.")
        with self._lock:
            # One step: request number n of a list script is the one that gets its text number n.
            self.requests.append(request)
            number, self._given = self._given, self._given + 1
        text = self._text(request, number)
        for stop in request.stop:
            text = text.split(stop, 1)[0]
        return Completion(
            text=text,
            finish_reason="stop",
            prompt_tokens=n_prompt,
            prompt_tokens_computed=n_prompt,
            completion_tokens=len(text.split()),
            latency_s=time.perf_counter() - started,
            cached=False,
        )

    def _text(self, request: ScriptedRequest, number: int) -> str:
        found: Any
        if callable(self.script):
            try:
                found = self.script(request.messages)
            except Exception as error:
                raise LMError(f"The script raised {type(error).__name__}: {error}") from error
        elif isinstance(self.script, Mapping):
            found = self._look_up(self.script, request)
        else:
            found = self._at(self.script, number)
        if isinstance(found, Exception):
            raise LMError(f"Scripted failure: {found}") from found
        if not isinstance(found, str):
            raise LMError(f"The script gave {type(found).__name__} {found!r}; allowed are texts and exceptions.")
        return found

    def _look_up(self, script: Mapping[str, str | Exception], request: ScriptedRequest) -> str | Exception:
        last = request.messages[-1]["content"]
        if last in script:
            return script[last]
        prompt = "\n".join(message["content"] for message in request.messages)
        keys = [key for key in script if key in prompt]
        if not keys:
            raise LMError(f"No key of the script occurs in the prompt {prompt[:400]!r}; keys: {sorted(script)[:20]}.")
        return script[max(keys, key=len)]

    def _at(self, script: Sequence[str | Exception], number: int) -> str | Exception:
        if number >= len(script):
            raise LMError(f"The script has {len(script)} completions and a further request came. Record more of them.")
        return script[number]


def count_words(messages: Messages) -> int:
    """Return the words of all messages: what a scripted LM calls tokens."""
    return sum(len(message["content"].split()) for message in messages)


class ScriptedEngine:
    """DSPy's engine interface on a script."""

    supported_params = SUPPORTED_PARAMS

    def __init__(self, player: _Player) -> None:
        self.player = player

    def complete(self, request: Request) -> Response:
        """Answer one canonical request; raises dspy.lm15 errors."""
        with as_lm15_errors():
            config = request.config
            asked = ScriptedRequest(
                tuple(messages_of(request)), config.max_tokens, config.temperature, config.seed, config.stop
            )
            completion = self.player.answer(asked)
            note_call(completion)
            return response_of(request, completion)

    def stream(self, request: Request) -> Any:
        """Answer in one piece."""
        return iter(response_to_events(self.complete(request)))

    def close(self) -> None:
        """Nothing is open."""


class AsyncScriptedEngine:
    """The same for `acall`."""

    supported_params = SUPPORTED_PARAMS

    def __init__(self, engine: ScriptedEngine) -> None:
        self._engine = engine

    async def complete(self, request: Request) -> Response:
        """Answer one canonical request."""
        return self._engine.complete(request)

    async def stream(self, request: Request) -> Any:
        """Answer in one piece."""
        for event in response_to_events(self._engine.complete(request)):
            yield event

    async def aclose(self) -> None:
        """Nothing is open."""


class ScriptedLM(dspy.LM):
    """A language model for tests: its answers are given, its requests are recorded in `requests`.

    Args:
        script: a list, replayed in order; a mapping, whose key is the whole last message or occurs in the prompt (the
            longest such key wins); or a function of the messages. Exceptions in it are raised as LMError.
        name: what reports call it.
        n_ctx: words a prompt may have, plus one.
        parallel: requests it says it answers at once, which is how many rows an evaluation runs at once.

    An exhausted list, an unknown prompt and a raising function are errors, never empty answers. Copies share it all.
    Safe to call from many threads; a function is called by all of them, and a list goes to whoever comes first.
    """

    def __init__(
        self, script: Script, *, name: str = "scripted", n_ctx: int = 32768, parallel: int = 1, **kwargs: Any
    ) -> None:
        if isinstance(script, str):
            raise ConfigError("script is one text; allowed are a list of texts, a mapping, or a function of messages.")
        if parallel < 1:
            raise ConfigError(f"parallel is {parallel}; allowed are whole numbers from 1.")
        self._player = _Player(script, n_ctx)
        self._name = name
        self._parallel = parallel
        engine = ScriptedEngine(self._player)
        super().__init__(
            f"scripted/{name}",
            cache=False,
            num_retries=0,
            engine=engine,
            async_engine=AsyncScriptedEngine(engine),
            **kwargs,
        )

    @property
    def requests(self) -> list[ScriptedRequest]:
        """All requests so far, oldest first, of all copies together."""
        return self._player.requests

    @property
    def name(self) -> str:
        """As given."""
        return self._name

    @property
    def n_ctx(self) -> int:
        """As given."""
        return self._player.n_ctx

    @property
    def parallel(self) -> int:
        """As given."""
        return self._parallel

    @property
    def fingerprint(self) -> str:
        """Digest of the name and, unless it is a function, of the script."""
        script = self._player.script
        if callable(script):
            content = [getattr(script, "__module__", ""), getattr(script, "__qualname__", "")]
        elif isinstance(script, Mapping):
            content = [[key, repr(value)] for key, value in sorted(script.items())]
        else:
            content = [repr(value) for value in script]
        return hashlib.sha256(json.dumps([self._name, content]).encode()).hexdigest()

    def complete_messages(
        self,
        messages: Messages,
        *,
        max_tokens: int | None = None,
        temperature: float | None = None,
        seed: int | None = None,
        stop: Sequence[str] = (),
    ) -> Completion:
        """Answer the next request of the script, without DSPy."""
        if not messages:
            raise ConfigError("The prompt has no messages; at least one user message is needed.")
        copied = tuple(dict(message) for message in messages)
        return self._player.answer(ScriptedRequest(copied, max_tokens, temperature, seed, tuple(stop)))

    def count_tokens(self, messages: Messages) -> int:
        """Return the words of all messages."""
        return count_words(messages)

    def __deepcopy__(self, memo: dict[int, Any]) -> "ScriptedLM":
        copied: ScriptedLM = self.copy()
        return copied
