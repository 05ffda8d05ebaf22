"""What an engine's process and its parent write to each other: one JSON object per line. Holds no connection.

JSON, not pickle: what a crashed process left behind must not be able to run code. Floats survive it to the last bit.
"""

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import promptopt.errors as errors
from promptopt.errors import LMError, PromptoptError
from promptopt.lm.llama_cpp.lora import LoraWeights
from promptopt.lm.llama_cpp.requests import Generated, GenerationRequest
from promptopt.lm.llama_cpp.sampling import Sampling
from promptopt.lm.protocol import TokenLogprob


def line_of(message: dict[str, Any]) -> bytes:
    """Return a message as a line; text of any kind, lone surrogates included, is escaped to ASCII."""
    return json.dumps(message, separators=(",", ":")).encode("ascii") + b"\n"


def request_to_wire(request: GenerationRequest) -> dict[str, Any]:
    """Return a request as JSON values."""
    return {
        "prompt": [int(token) for token in request.prompt],
        "max_tokens": request.max_tokens,
        "sampling": asdict(request.sampling),
        "stop": list(request.stop),
        "grammar": request.grammar,
        "logprobs": request.logprobs,
        "lora": lora_to_wire(request.lora),
    }


def request_from_wire(body: dict[str, Any]) -> GenerationRequest:
    """Return the request again; raises ModelError if a LoRA file is gone by now."""
    return GenerationRequest(
        prompt=body["prompt"],
        max_tokens=body["max_tokens"],
        sampling=Sampling(**body["sampling"]),
        stop=tuple(body["stop"]),
        grammar=body["grammar"],
        logprobs=body["logprobs"],
        lora=lora_from_wire(body["lora"]),
    )


def lora_to_wire(lora: tuple[LoraWeights, ...]) -> list[Any]:
    """Return LoRA weights as JSON values; with whole paths, as this process may have changed its folder."""
    return [[os.path.abspath(item.path), item.scale, item.fingerprint] for item in lora]


def lora_from_wire(body: list[Any]) -> tuple[LoraWeights, ...]:
    """Return the LoRA weights again; raises ModelError if a file is gone by now."""
    return tuple(LoraWeights(Path(path), scale, fingerprint) for path, scale, fingerprint in body)


def generated_to_wire(made: Generated) -> dict[str, Any]:
    """Return what was generated as JSON values."""
    logprobs = None if made.logprobs is None else [_logprob_to_wire(item) for item in made.logprobs]
    return {
        "tokens": list(made.tokens),
        "text": made.text,
        "finish_reason": made.finish_reason,
        "prompt_tokens_computed": made.prompt_tokens_computed,
        "latency_s": made.latency_s,
        "first_token_s": made.first_token_s,
        "logprobs": logprobs,
    }


def generated_from_wire(body: dict[str, Any], latency_s: float) -> Generated:
    """Return it again, with the times as the asking process saw them.

    Args:
        latency_s: from submission there to the answer there.
    """
    outside_s = max(0.0, latency_s - body["latency_s"])
    logprobs = body["logprobs"]
    return Generated(
        tokens=tuple(body["tokens"]),
        text=body["text"],
        finish_reason=body["finish_reason"],
        prompt_tokens_computed=body["prompt_tokens_computed"],
        latency_s=latency_s,
        first_token_s=body["first_token_s"] + outside_s,
        logprobs=None if logprobs is None else tuple(_logprob_from_wire(item) for item in logprobs),
    )


def _logprob_to_wire(item: TokenLogprob) -> list[Any]:
    # Latin-1 maps bytes to characters one by one, whatever they are.
    top = [_logprob_to_wire(other) for other in item.top]
    return [item.token, item.text, item.data.decode("latin-1"), item.logprob, top]


def _logprob_from_wire(body: list[Any]) -> TokenLogprob:
    token, text, data, logprob, top = body
    return TokenLogprob(token, text, data.encode("latin-1"), logprob, tuple(_logprob_from_wire(item) for item in top))


def error_to_wire(error: BaseException) -> dict[str, str]:
    """Return an error's class name and message."""
    return {"class": type(error).__name__, "text": str(error)}


def error_from_wire(body: dict[str, str]) -> PromptoptError:
    """Return an error of the same class if it is one of promptopt's, else an LMError that names it."""
    kind = getattr(errors, body["class"], None)
    if isinstance(kind, type) and issubclass(kind, PromptoptError):
        return kind(body["text"])
    return LMError(f"The engine's process failed with {body['class']}: {body['text']}.")
