"""The fields of OpenAI's requests that are served, and what becomes of all others.

A field that is not served and would change the answer is refused; one that would not is left out.
"""

from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from promptopt.serve.failures import RequestRefused

MAX_DRAWS = 128
MAX_TOP_LOGPROBS = 20
MAX_GRAMMAR_CHARS = 16_384
"""llama.cpp reads nested groups by recursion: tens of thousands of them overflow its stack and end the process."""

HARMLESS_FIELDS = frozenset(
    """user metadata store service_tier safety_identifier prompt_cache_key prompt_cache_retention prediction
    parallel_tool_calls""".split()
)
"""Fields that no value of which changes the answer's text."""

HARMLESS_VALUES: dict[str, tuple[Any, ...]] = {
    "best_of": (1,),
    "echo": (False,),
    "function_call": ("none", "auto"),
    "modalities": (["text"],),
    "suffix": ("",),
    "tool_choice": ("none", "auto"),
}
"""Fields that are refused but for these values (and null, [] and {}, which ask for nothing)."""


class _Body(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    @classmethod
    def read(cls, content: dict[str, Any]) -> Self:
        """Check the JSON object of a request.

        Raises:
            RequestRefused: a field has a wrong value, or is one that is not served.
        """
        known = cls.model_fields
        for name, value in content.items():
            if name not in known and not _is_harmless(name, value):
                raise RequestRefused(
                    f"The field {name!r} is not supported here and would change the answer. Leave it out; supported "
                    f"are {', '.join(sorted(known))}.",
                    param=name,
                    code="unsupported_parameter",
                )
        try:
            return cls.model_validate({name: value for name, value in content.items() if name in known})
        except ValidationError as error:
            raise _refusal(cls, content, error) from error


class StreamOptions(_Body):
    """How an answer is streamed."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class _Generation(_Body):
    """What chats and completions have in common; None means the server's own setting."""

    model: str | None = Field(None, description="the id that GET /v1/models shows")
    n: int | None = Field(None, ge=1, le=MAX_DRAWS, description=f"a whole number from 1 to {MAX_DRAWS}")
    temperature: float | None = Field(None, description="a number; 0 is greedy")
    top_p: float | None = Field(None, description="a number from 0 to 1")
    top_k: int | None = Field(None, description="a whole number; 0 keeps all tokens")
    min_p: float | None = Field(None, description="a number from 0 to 1")
    seed: int | None = Field(None, description="a whole number")
    repetition_penalty: float | None = Field(None, description="a number; 1 is none")
    frequency_penalty: float | None = Field(None, description="a number; 0 is none")
    presence_penalty: float | None = Field(None, description="a number; 0 is none")
    max_tokens: int | None = Field(None, description="a positive whole number")
    stop: str | list[str] | None = Field(None, description="a text or a list of texts")
    response_format: dict[str, Any] | None = Field(None, description='an object such as {"type": "json_object"}')
    grammar: str | None = Field(
        None,
        max_length=MAX_GRAMMAR_CHARS,
        description=f"a GBNF grammar with the rule `root`, of at most {MAX_GRAMMAR_CHARS} characters",
    )
    stream: bool | None = Field(None, description="true or false")
    stream_options: StreamOptions | None = Field(None, description='an object such as {"include_usage": true}')


class ChatBody(_Generation):
    """POST /v1/chat/completions."""

    messages: list[dict[str, Any]] = Field(description="a list of messages, each with role and content")
    max_completion_tokens: int | None = Field(None, description="a positive whole number")
    logprobs: bool | None = Field(None, description="true or false")
    top_logprobs: int | None = Field(
        None, ge=0, le=MAX_TOP_LOGPROBS, description=f"a whole number from 0 to {MAX_TOP_LOGPROBS}"
    )


class TextBody(_Generation):
    """POST /v1/completions."""

    prompt: str | list[str] = Field(description="a text or a list of texts (token ids are not supported)")
    logprobs: int | None = Field(
        None, ge=0, le=MAX_TOP_LOGPROBS, description=f"a whole number from 0 to {MAX_TOP_LOGPROBS}"
    )


class EmbeddingBody(_Body):
    """POST /v1/embeddings."""

    model: str | None = Field(None, description="the id that GET /v1/models shows")
    input: str | list[str] = Field(description="a text or a list of texts (token ids are not supported)")
    encoding_format: str | None = Field(None, pattern="^(float|base64)$", description="'float' or 'base64'")


def _is_harmless(name: str, value: Any) -> bool:
    asks_nothing = value is None or value == [] or value == {}
    return asks_nothing or name in HARMLESS_FIELDS or value in HARMLESS_VALUES.get(name, ())


def _refusal(body: type[_Body], content: dict[str, Any], error: ValidationError) -> RequestRefused:
    """Say what is wrong with the first field that pydantic found fault with."""
    name = str(error.errors(include_url=False)[0]["loc"][0])
    allowed = body.model_fields[name].description or "what OpenAI's API documents"
    if name not in content:
        return RequestRefused(f"The field {name!r} is missing; it needs {allowed}.", param=name)
    shown = repr(content[name])
    shown = shown if len(shown) <= 80 else shown[:77] + "..."
    return RequestRefused(f"The field {name!r} is {shown}; allowed is {allowed}.", param=name)
