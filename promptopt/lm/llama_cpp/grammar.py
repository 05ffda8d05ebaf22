"""Grammars for llama.cpp's sampler: of JSON schemas and response formats, and the check that llama.cpp takes one.

What lives here: OpenAI's `response_format` shapes, and llama.cpp's verdict on a grammar with its reason. How JSON and
schemas are written as GBNF is `layout.gbnf`'s; which tokens a grammar leaves is the sampler's.
"""

import os
import tempfile
import threading
from collections.abc import Callable, Mapping
from typing import Any

from promptopt.errors import ConfigError
from promptopt.layout.gbnf.json_schema import SchemaRules
from promptopt.layout.gbnf.json_strings import JsonStrings
from promptopt.layout.gbnf.json_text import RELAXED, JsonText
from promptopt.layout.gbnf.rules import Rules
from promptopt.lm.llama_cpp import native

_KINDS = ("text", "json_object", "json_schema")
_STDERR = 2
_reading_stderr = threading.Lock()


def _json() -> JsonText:
    rules = Rules()
    return JsonText(rules, RELAXED, JsonStrings(rules))


def _json_object() -> str:
    text = _json()
    return text.rules.text(text.any_object())


JSON_OBJECT_GBNF = _json_object()
"""Any JSON object, on one line or indented."""


def gbnf_of_json_schema(schema: Mapping[str, Any]) -> str:
    """Return a grammar of JSON texts that are valid under `schema`, on one line or indented.

    Narrower than the schema where that needs no saying: members in the order of `properties` and without extra ones,
    numbers of at most 32 digits. `format` is kept for dates, times, durations, UUIDs and IPv4, and says nothing else.

    Raises:
        ConfigError: the schema is wrong, allows nothing, or holds what a grammar cannot express.
    """
    text = _json()
    try:
        return text.rules.text(SchemaRules(text, schema).expression(schema, "schema"))
    except RecursionError as error:
        raise ConfigError("The JSON schema's references never come to an end. Correct the schema.") from error


def gbnf_of_response_format(response_format: Mapping[str, Any]) -> str | None:
    """Return the grammar of an OpenAI `response_format`; None for text, which is not constrained.

    A schema stands under "json_schema", as in OpenAI's API, or beside "type", as in DSPy's requests.

    Raises:
        ConfigError: the shape is unknown, or as for `gbnf_of_json_schema`.
    """
    kind = response_format.get("type")
    if kind == "text":
        return None
    if kind == "json_object":
        return JSON_OBJECT_GBNF
    if kind != "json_schema":
        raise ConfigError(f"response_format has the type {kind!r}; allowed are {', '.join(_KINDS)}.")
    inner = response_format.get("json_schema", response_format)
    schema = inner.get("schema") if isinstance(inner, Mapping) else None
    if not isinstance(schema, Mapping):
        raise ConfigError(
            f"response_format of type 'json_schema' has the schema {schema!r}; allowed is an object. Write "
            '{"type": "json_schema", "json_schema": {"name": ..., "schema": {...}}}.'
        )
    return gbnf_of_json_schema(schema)


def check_grammar(text: str) -> None:
    """Do nothing if llama.cpp can compile this grammar; needs no model.

    A grammar that names tokens (`<think>`) is for one model's vocabulary: only that model can tell.

    Raises:
        ConfigError: it cannot; the message holds its reason.
        MissingExtraError: llama-cpp-python is not installed.
    """
    if not text.strip() or "\x00" in text:
        raise ConfigError("The grammar is empty or holds a NUL character. It must be GBNF with a rule called root.")
    try:
        raw = text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ConfigError(f"The grammar holds half a surrogate pair: {error}. Write it as GBNF in UTF-8.") from error
    lib = native.library()
    sampler, said = _with_stderr(lambda: lib.llama_sampler_init_grammar(None, raw, b"root"))
    if sampler:
        lib.llama_sampler_free(sampler)
    if sampler or said.startswith("no vocab to parse token"):
        return
    raise ConfigError(
        f"llama.cpp cannot compile the grammar: {said}. It must be GBNF with a rule called root; it begins with "
        f"{text[:80]!r}."
    )


def _with_stderr(call: Callable[[], Any]) -> tuple[Any, str]:
    """Return what `call` returns and the first line it wrote: llama.cpp's parser prints its reason, and only prints it.

    What other threads write meanwhile is passed on.
    """
    with _reading_stderr, tempfile.TemporaryFile() as file:
        native.clear_log()
        kept = os.dup(_STDERR)
        os.dup2(file.fileno(), _STDERR)
        try:
            result = call()
        finally:
            os.dup2(kept, _STDERR)
            os.close(kept)
        file.seek(0)
        written = file.read()
        reason, _, _ = written.partition(b"\n")
        if not reason.startswith(b"parse: "):
            os.write(_STDERR, written)
            return result, native.last_log_lines()
    return result, reason.decode("utf-8", "replace").removeprefix("parse: error parsing grammar: ")
