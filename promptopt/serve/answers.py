"""Completions as the JSON objects that OpenAI's clients read: whole answers, and the chunks of a stream."""

import base64
import secrets
import struct
import time
from collections.abc import Sequence
from typing import Any, Protocol

from promptopt.lm.protocol import Completion, TokenLogprob

Json = dict[str, Any]


class AnswerShape(Protocol):
    """How the answers of one request are written."""

    def whole(self, completions: Sequence[Completion]) -> Json:
        """Return the answer of a request that does not stream."""
        ...

    def opening(self, index: int) -> list[Json]:
        """Return the chunks before the first piece of choice `index`."""
        ...

    def piece(self, index: int, text: str) -> Json:
        """Return the chunk of one piece of text."""
        ...

    def closing(self, index: int, completion: Completion) -> Json:
        """Return the last chunk of choice `index`: why it ended, and its logprobs."""
        ...

    def final(self, completions: Sequence[Completion]) -> Json:
        """Return the chunk with the token counts of the whole request."""
        ...


class _Shape:
    """What chats and completions have in common.

    Args:
        model: the served id.
        draws: how many completions belong to one prompt.
    """

    prefix = ""
    whole_object = ""
    chunk_object = ""

    def __init__(self, model: str, draws: int) -> None:
        self._draws = draws
        self._head = {"id": f"{self.prefix}-{secrets.token_hex(12)}", "created": int(time.time()), "model": model}

    def _whole(self, choices: list[Json], completions: Sequence[Completion]) -> Json:
        usage = usage_of(completions, self._draws)
        return {**self._head, "object": self.whole_object, "choices": choices, "usage": usage}

    def _chunk(self, index: int, finish_reason: str | None, logprobs: Json | None, **content: Any) -> Json:
        choice = {"index": index, **content, "finish_reason": finish_reason, "logprobs": logprobs}
        return {**self._head, "object": self.chunk_object, "choices": [choice]}

    def final(self, completions: Sequence[Completion]) -> Json:
        """See `AnswerShape`."""
        usage = usage_of(completions, self._draws)
        return {**self._head, "object": self.chunk_object, "choices": [], "usage": usage}


class ChatShape(_Shape):
    """Answers of /v1/chat/completions."""

    prefix = "chatcmpl"
    whole_object = "chat.completion"
    chunk_object = "chat.completion.chunk"

    def whole(self, completions: Sequence[Completion]) -> Json:
        """See `AnswerShape`."""
        choices = [
            {
                "index": index,
                "message": {"role": "assistant", "content": done.text, "refusal": None},
                "finish_reason": done.finish_reason,
                "logprobs": chat_logprobs(done),
            }
            for index, done in enumerate(completions)
        ]
        return self._whole(choices, completions)

    def opening(self, index: int) -> list[Json]:
        """See `AnswerShape`."""
        return [self._chunk(index, None, None, delta={"role": "assistant", "content": ""})]

    def piece(self, index: int, text: str) -> Json:
        """See `AnswerShape`."""
        return self._chunk(index, None, None, delta={"content": text})

    def closing(self, index: int, completion: Completion) -> Json:
        """See `AnswerShape`."""
        return self._chunk(index, completion.finish_reason, chat_logprobs(completion), delta={})


class TextShape(_Shape):
    """Answers of /v1/completions."""

    prefix = "cmpl"
    whole_object = "text_completion"
    chunk_object = "text_completion"

    def whole(self, completions: Sequence[Completion]) -> Json:
        """See `AnswerShape`."""
        choices = [
            {
                "index": index,
                "text": done.text,
                "finish_reason": done.finish_reason,
                "logprobs": text_logprobs(done),
            }
            for index, done in enumerate(completions)
        ]
        return self._whole(choices, completions)

    def opening(self, index: int) -> list[Json]:
        """See `AnswerShape`."""
        return []

    def piece(self, index: int, text: str) -> Json:
        """See `AnswerShape`."""
        return self._chunk(index, None, None, text=text)

    def closing(self, index: int, completion: Completion) -> Json:
        """See `AnswerShape`."""
        return self._chunk(index, completion.finish_reason, text_logprobs(completion), text="")


def usage_of(completions: Sequence[Completion], draws: int) -> Json:
    """Return the token counts of a request; a prompt with several draws counts once."""
    groups = [completions[start : start + draws] for start in range(0, len(completions), draws)]
    prompt = sum(group[0].prompt_tokens for group in groups)
    cached = sum(
        max(0, group[0].prompt_tokens - sum(done.prompt_tokens_computed for done in group)) for group in groups
    )
    written = sum(done.completion_tokens for done in completions)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": written,
        "total_tokens": prompt + written,
        "prompt_tokens_details": {"cached_tokens": cached},
    }


def chat_logprobs(completion: Completion) -> Json | None:
    """Return the logprobs as chats carry them; None where none were asked for."""
    if completion.logprobs is None:
        return None
    content = [
        {**_token(chosen), "top_logprobs": [_token(other) for other in chosen.top]} for chosen in completion.logprobs
    ]
    return {"content": content, "refusal": None}


def text_logprobs(completion: Completion) -> Json | None:
    """Return the logprobs as completions carry them; None where none were asked for."""
    if completion.logprobs is None:
        return None
    offsets = []
    position = 0
    for chosen in completion.logprobs:
        offsets.append(position)
        position += len(chosen.text)
    return {
        "tokens": [_shown(chosen) for chosen in completion.logprobs],
        "token_logprobs": [chosen.logprob for chosen in completion.logprobs],
        "top_logprobs": [{_shown(other): other.logprob for other in chosen.top} for chosen in completion.logprobs],
        "text_offset": offsets,
    }


def as_base64(vector: Sequence[float]) -> str:
    """Return an embedding as OpenAI's base64: little-endian 32-bit floats."""
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode("ascii")


def _shown(token: TokenLogprob) -> str:
    """Return a token as completions name it, so that two pieces of characters are not taken for one another."""
    try:
        return token.data.decode("utf-8") or token.text
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in token.data)


def _token(token: TokenLogprob) -> Json:
    return {"token": token.text, "logprob": token.logprob, "bytes": list(token.data)}
