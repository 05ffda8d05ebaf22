"""The GGUF's own chat template, rendered exactly as transformers' `apply_chat_template` renders it.

The same Jinja sandbox with the same switches and the same functions, so that the text a model was trained on and the
text it is served are equal. Knows nothing about tokens or layouts.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from promptopt.errors import ConfigError, ModelError, PromptRefusedError
from promptopt.lm.protocol import Messages

ROLES = ("system", "user", "assistant")


class _GenerationTag(jinja2.ext.Extension):
    """`{% generation %}` marks assistant text for training masks; while rendering it is transparent."""

    # Jinja declares this an instance attribute but reads it from the class.
    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _raise_exception(message: str) -> None:
    raise jinja2.exceptions.TemplateError(message)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # Jinja's own filter escapes HTML characters, which no model was trained on.
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _strftime_now(form: str) -> str:
    return datetime.now().strftime(form)


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationTag, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    return environment


def check_messages(messages: Messages) -> None:
    """Raise ConfigError unless `messages` is a chat prompt of known roles with text contents."""
    if not messages:
        raise ConfigError("The prompt has no messages; at least one user message is needed.")
    for number, message in enumerate(messages, start=1):
        if set(message) != {"role", "content"} or not isinstance(message["content"], str):
            raise ConfigError(f"Message {number} is {dict(message)!r}; it needs exactly 'role' and a text 'content'.")
        if message["role"] not in ROLES:
            raise ConfigError(f"Message {number} has the role {message['role']!r}; allowed are {', '.join(ROLES)}.")
        try:
            message["content"].encode("utf-8")
        except UnicodeEncodeError as error:
            raise ConfigError(
                f"Message {number} is not valid Unicode ({error}); repair the data it comes from."
            ) from error


class ChatTemplate:
    """A compiled chat template with the special tokens it may name.

    Args:
        source: the Jinja text from the GGUF's `tokenizer.chat_template`; None raises ModelError.
        special_tokens: template variables such as `bos_token` -> its text; absent ones render as nothing.
        model: what error messages call the model.
    """

    def __init__(self, source: str | None, special_tokens: Mapping[str, str], *, model: str) -> None:
        if source is None:
            raise ModelError(
                f"{model} has no chat template (GGUF key tokenizer.chat_template), so chat prompts cannot be written "
                "the way it was trained. Use the instruct version of the model, or export it again with a tokenizer "
                "that has a chat template."
            )
        self.source = source
        self._special_tokens = dict(special_tokens)
        self._model = model
        try:
            self._compiled = _environment().from_string(source)
        except jinja2.TemplateSyntaxError as error:
            raise ModelError(f"The chat template of {model} does not compile: {error}.") from error

    def render(self, messages: Messages) -> str:
        """Return the prompt's text, ending where the model is to go on writing.

        A last message of role assistant is a prefill: its text follows the generation prompt and its turn stays open.

        Raises:
            ConfigError: the messages are malformed.
            PromptRefusedError: the template refuses them (e.g. no system role).
            ModelError: the template does what no template may do.
        """
        check_messages(messages)
        if messages[-1]["role"] == "assistant":
            if len(messages) == 1:
                raise ConfigError("The prompt is one assistant message; a prefill needs a message before it.")
            return self._render(messages[:-1]) + messages[-1]["content"]
        return self._render(messages)

    def _render(self, messages: Messages) -> str:
        try:
            return self._compiled.render(
                messages=[dict(message) for message in messages],
                tools=None,
                documents=None,
                add_generation_prompt=True,
                **self._special_tokens,
            )
        except jinja2.exceptions.SecurityError as error:
            # No layout cures this one.
            raise ModelError(
                f"The chat template of {self._model} is not safe to run: {error}. Get the model from another source."
            ) from error
        except jinja2.TemplateError as error:
            roles = [message["role"] for message in messages]
            raise PromptRefusedError(
                f"The chat template of {self._model} refuses these messages (roles: {', '.join(roles)}): "
                f"{str(error).rstrip('.')}. {_cure(roles)}"
            ) from error


def _cure(roles: Sequence[str]) -> str:
    """Return what to change in the layout; templates differ in whether they know a system role, hardly in else."""
    if "system" in roles:
        return (
            "Put the instructions into the first user message: use a Layout with system_role: merged (in an experiment "
            "file, search.start.system_role: merged)."
        )
    return (
        "Send one user message: use a Layout with system_role: merged and demo_placement: block (in an experiment "
        "file, search.start.system_role: merged and search.start.demo_placement: block)."
    )
