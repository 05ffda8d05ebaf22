"""What is asked of the engine and what comes back: `GenerationRequest`, `Generated`, `EngineStats`."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from promptopt.lm.llama_cpp.batching.prefix_tree import token_key
from promptopt.lm.llama_cpp.lora import LoraSet, weights_key
from promptopt.lm.llama_cpp.sampling import Sampling
from promptopt.lm.protocol import FinishReason, TokenLogprob


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One prompt to continue; the caller has checked that `len(prompt) + max_tokens` fits into the context.

    Attributes:
        prompt: token ids, at least one.
        grammar: GBNF with a rule `root` that the text must follow; None = free.
        logprobs: None = none; n = of every generated token, with the n likeliest beside it.
        lora: LoRA weights to decode with.
    """

    prompt: Sequence[int]
    max_tokens: int
    sampling: Sampling
    stop: tuple[str, ...] = ()
    grammar: str | None = None
    logprobs: int | None = None
    lora: LoraSet = ()


@dataclass(frozen=True, slots=True)
class Generated:
    """What came out.

    Attributes:
        tokens: generated token ids without the one that ended the turn; they may reach beyond a stop string.
        text: their text, cut before a stop string.
        prompt_tokens_computed: prompt tokens that no resident prompt covered.
        latency_s: seconds from submission to the end, waiting included.
        first_token_s: seconds from submission to the first token.
        logprobs: one per token, where they were asked for.
    """

    tokens: tuple[int, ...]
    text: str
    finish_reason: FinishReason
    prompt_tokens_computed: int
    latency_s: float
    first_token_s: float
    logprobs: tuple[TokenLogprob, ...] | None = None


@dataclass(frozen=True, slots=True)
class EngineStats:
    """Counters since the model was loaded, and how things stand now.

    Attributes:
        requests_done, requests_failed: ended requests; one that was given up counts as failed.
        requests_running, requests_waiting: at this moment.
        prompt_tokens, prompt_tokens_computed: of all started requests.
        completion_tokens: generated.
        decode_seconds: inside llama_decode.
        busy_seconds: in which at least one request was there.
        decode_calls, decode_rows: llama_decode calls for next tokens, and the rows computed in them.
        resident_tokens: prompt tokens kept, shared ones counted once.
        kv_bytes: memory that keys and values take, used or not.
    """

    requests_done: int = 0
    requests_failed: int = 0
    requests_running: int = 0
    requests_waiting: int = 0
    prompt_tokens: int = 0
    prompt_tokens_computed: int = 0
    completion_tokens: int = 0
    decode_seconds: float = 0.0
    busy_seconds: float = 0.0
    decode_calls: int = 0
    decode_rows: int = 0
    resident_tokens: int = 0
    kv_bytes: int = 0


@dataclass(slots=True, eq=False)
class Job:
    """A request on its way through the engine."""

    request: GenerationRequest
    submitted_at: float
    on_text: Callable[[str], None] | None = None
    future: "Future[Generated]" = field(default_factory=Future)
    overtaken: int = 0
    key: bytes = field(init=False)
    weights: str = field(init=False)

    def __post_init__(self) -> None:
        self.key = token_key(self.request.prompt)
        self.weights = weights_key(self.request.lora)

    @property
    def given_up(self) -> bool:
        """Whether nobody waits for it any more."""
        return self.future.cancelled()

    @property
    def room(self) -> int:
        """Tokens the request takes at most, its prompt included."""
        return len(self.request.prompt) + self.request.max_tokens


def fail(job: Job, error: BaseException) -> None:
    """End a job with `error`, unless it was given up."""
    if job.future.set_running_or_notify_cancel():
        job.future.set_exception(error)
