"""The Modelfile with which Ollama puts the prompts that were evaluated before a GGUF.

SYSTEM and MESSAGE hold what the layout says before the question, TEMPLATE is the chat template as pieces in Go's
template language, PARAMETER the sampling of the evaluation. The client sends the last user message.

Sources: Ollama's parser/parser.go (what a quoted text may hold) and template/template.go (what a template sees).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace

from promptopt.deploy.chat_format import ChatFormat, Render, reduce_template
from promptopt.deploy.signature_json import recorded_spec
from promptopt.errors import ExportError
from promptopt.layout.render import render_messages
from promptopt.layout.signature import HISTORY_TYPE
from promptopt.lm.gguf_info import GgufInfo
from promptopt.lm.gguf_program import GgufProgram
from promptopt.lm.llama_cpp.chat_template import ChatTemplate
from promptopt.lm.protocol import Messages
from promptopt.records import AnswerSettings

_QUOTES = '"""'
_UNCONSTRAINED = (
    "#",
    "# It was evaluated with answers constrained by a grammar, which a Modelfile cannot hold: more of Ollama's answers",
    "# may not be in the format.",
)


@dataclass(frozen=True)
class ServedPrompt:
    """The messages of a program's prompts, with `{name}` where an input's value stands.

    Attributes:
        before: what precedes the question: system message and demo turns.
        question: the last user message, which the client sends.
        prefill: the beginning of the answer that is written for the model.
        constrained: whether a grammar kept answers in their format.
    """

    before: tuple[dict[str, str], ...]
    question: str
    prefill: str
    constrained: bool = False

    @property
    def messages(self) -> list[dict[str, str]]:
        """All messages without the prefill."""
        return [*self.before, {"role": "user", "content": self.question}]


def served_prompt(carried: GgufProgram) -> ServedPrompt:
    """Return what a program of one predictor sends to its model.

    Raises:
        ExportError: it has several predictors, or its prompts depend on more than texts put in places.
    """
    if len(carried.signatures) != 1:
        raise ExportError(f"A Modelfile holds the prompt of one predictor: {carried.needs_program}.")
    ((name, record),) = carried.signatures.items()
    prompt = carried.candidate.predictors[name]
    spec = replace(recorded_spec(record), instructions=prompt.instructions)
    if any(field.type_name == HISTORY_TYPE for field in spec.inputs):
        raise ExportError("An input is a dspy.History, whose turns a Modelfile cannot hold.")
    inputs = {field.name: f"{{{field.name}}}" for field in spec.inputs}
    layout = carried.candidate.layout_of(name)
    messages = render_messages(layout, spec, prompt.demos, inputs)
    prefill = messages.pop()["content"] if messages[-1]["role"] == "assistant" else ""
    return ServedPrompt(tuple(messages[:-1]), messages[-1]["content"], prefill, layout.constrained)


def modelfile(
    gguf_name: str, info: GgufInfo, special_tokens: Mapping[str, str], carried: GgufProgram, settings: AnswerSettings
) -> str:
    """Return the Modelfile for the GGUF `gguf_name` in the same folder.

    Args:
        info: header of the GGUF.
        special_tokens: template variables such as `eos_token` -> text.
        settings: how it was measured.

    Raises:
        ExportError: Ollama cannot be told to write the same prompt; says why.
    """
    served = served_prompt(carried)
    template = ChatTemplate(info.chat_template, special_tokens, model=gguf_name)
    render = _render(template, info, special_tokens.get("bos_token", ""))
    chat = reduce_template(render, template.source, [served.messages])
    lines = [
        f"# Written by {carried.made_by} for the experiment {carried.experiment}. Ollama continues the prompt that was",
        "# evaluated if the user message has this form, with the values in the place of the names in braces:",
        "#",
        *(f"#   {line}".rstrip() for line in served.question.splitlines()),
        *(_UNCONSTRAINED if served.constrained else ()),
        "",
        f"FROM ./{gguf_name}",
        f"TEMPLATE {_quoted(go_template(chat, served.prefill))}",
    ]
    lines += _parameters(settings, special_tokens)
    for message in served.before:
        text = _quoted(chat.content(message))
        lines.append(f"SYSTEM {text}" if message["role"] == "system" else f"MESSAGE {message['role']} {text}")
    return "\n".join(lines) + "\n"


def go_template(chat: ChatFormat, prefill: str = "") -> str:
    """Return `chat` in Go's template language, as Ollama fills it in: over `.System` and `.Messages`.

    A last message of the assistant's is left open, for the model to continue. `prefill` follows the generation prompt.
    """
    branches = []
    for role in ("system", "user", "assistant"):
        if role not in chat.before:
            continue
        end = _text(chat.after[role])
        if role == "user":
            generation = _text(chat.generation + prefill)
            end += "{{ if $last }}" + generation + "{{ end }}" if generation else ""
        elif role == "assistant":
            end = "{{ if not $last }}" + end + "{{ end }}"
        condition = f'if eq .Role "{role}"'
        branches.append("{{ " + condition + " }}" + _text(chat.before[role]) + "{{ .Content }}" + end)
    opening = _text(chat.start)
    if chat.start_without_system:
        opening += "{{ if not .System }}" + _text(chat.start_without_system) + "{{ end }}"
    body = branches[0] + "".join("{{ else " + branch.removeprefix("{{ ") for branch in branches[1:]) + "{{ end }}"
    return (
        opening + "{{ range $i, $_ := .Messages }}{{ $last := eq (len (slice $.Messages $i)) 1 }}" + body + "{{ end }}"
    )


def _render(template: ChatTemplate, info: GgufInfo, bos: str) -> Render:
    """Return what renders a prompt without the token that Ollama puts in front by itself, if it does."""
    if not info.metadata.get("tokenizer.ggml.add_bos_token", False):
        return template.render

    def render(messages: Messages) -> str:
        text = template.render(messages)
        if not bos or not text.startswith(bos):
            raise ExportError(
                f"The tokenizer puts {bos!r} in front of every text, and the chat template does not: Ollama would ask "
                "with a prompt that the model was not trained on."
            )
        return text.removeprefix(bos)

    return render


def _parameters(settings: AnswerSettings, special_tokens: Mapping[str, str]) -> list[str]:
    lines = [
        f"PARAMETER num_ctx {settings.n_ctx}",
        f"PARAMETER num_predict {settings.max_tokens}",
        f"PARAMETER temperature {settings.temperature:g}",
        f"PARAMETER seed {settings.seed}",
        # Ollama's own defaults would change even greedy answers.
        "PARAMETER repeat_penalty 1",
        "PARAMETER top_k 0",
        "PARAMETER top_p 1",
    ]
    end = special_tokens.get("eos_token", "")
    return [*lines, f"PARAMETER stop {_quoted(end)}"] if end else lines


def _text(text: str) -> str:
    """Return an action that writes `text`, whatever is in it; the empty text needs none."""
    if not text:
        return ""
    # JSON's escapes are Go's, but for characters beyond 16 bits, which stay as they are.
    literal = json.dumps(text, ensure_ascii=False).replace('\\"', "\\x22")
    literal = "".join(c if _kept(c) else f"\\U{ord(c):08x}" for c in literal)
    return "{{ " + literal + " }}"


def _quoted(text: str) -> str:
    """Return `text` in the quotes of a Modelfile, which know no escapes.

    Raises:
        ExportError: it holds what these quotes cannot.
    """
    lost = sorted({f"U+{ord(c):04X}" for c in text if not _kept(c)})
    if lost:
        raise ExportError(f"The prompt holds {', '.join(lost)}, which Ollama's reader of Modelfiles drops.")
    if _QUOTES in text:
        raise ExportError(f"The prompt holds {_QUOTES}, which ends a text in a Modelfile.")
    return f"{_QUOTES}{text}{_QUOTES}"


def _kept(character: str) -> bool:
    # Python's idea of a printable character is that of Go's strconv.IsPrint: no separators but the space.
    return character.isprintable() or character in "\n\r\t"
