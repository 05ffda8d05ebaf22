"""What Ollama does with a Modelfile and a chat request, as its source says it; for the Go templates we write only.

From parser/parser.go (ParseFile, unquote), server/routes.go (ChatHandler) and template/template.go (Execute, collate).
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

ACTION = re.compile(r"\{\{ (.*?) \}\}", re.DOTALL)


@dataclass
class Model:
    """A parsed Modelfile."""

    source: str = ""
    template: str = ""
    system: str = ""
    messages: list[dict[str, str]] = field(default_factory=list)
    parameters: dict[str, str] = field(default_factory=dict)

    def prompt(self, request: list[dict[str, str]]) -> str:
        """Return the prompt of a chat request."""
        messages = [*self.messages, *request]
        if request[0]["role"] != "system" and self.system:
            messages = [{"role": "system", "content": self.system}, *messages]
        collated: list[dict[str, str]] = []
        for message in messages:
            if collated and collated[-1]["role"] == message["role"]:
                collated[-1] = {**message, "content": f"{collated[-1]['content']}\n\n{message['content']}"}
            else:
                collated.append(message)
        system = "\n\n".join(message["content"] for message in messages if message["role"] == "system")
        return render(self.template, collated, system)


def parse(text: str) -> Model:
    """Return the Modelfile in `text`."""
    model = Model()
    for name, argument, value in _commands(text):
        match name:
            case "FROM":
                model.source = value
            case "TEMPLATE":
                model.template = value
            case "SYSTEM":
                model.system = value
            case "MESSAGE":
                model.messages.append({"role": argument, "content": value})
            case "PARAMETER":
                model.parameters[argument] = value
            case _:
                raise ValueError(name)
    return model


def _commands(text: str) -> Iterator[tuple[str, str, str]]:
    at = 0
    while at < len(text):
        if text[at] == "#":
            at = text.index("\n", at)
        elif text[at] in " \n\t\r":
            at += 1
        else:
            found = re.compile(r"([A-Z]+) +").match(text, at)
            assert found, text[at : at + 40]
            name, argument, at = found[1], "", found.end()
            if name in ("MESSAGE", "PARAMETER"):
                found = re.compile(r"([a-z_]+) +").match(text, at)
                assert found
                argument, at = found[1], found.end()
            buffer = ""
            while True:
                letter = text[at] if at < len(text) else "\n"
                value = _unquote(buffer.strip())
                if letter in "\r\n" and value is not None:
                    break
                assert at < len(text), "unexpected EOF"
                # Letters that Go's strconv.IsPrint does not know are dropped.
                buffer += letter if letter.isprintable() or letter in "\n\r\t" else ""
                at += 1
            yield name, argument, value


def _unquote(text: str) -> str | None:
    if text[:3] == '"""':
        return text[3:-3] if len(text) >= 6 and text[-3:] == '"""' else None
    if text[:1] == '"':
        return text[1:-1] if len(text) >= 2 and text[-1] == '"' else None
    return text


def render(template: str, messages: list[dict[str, str]], system: str) -> str:
    """Return what Go's text/template writes for the subset that promptopt emits."""
    pieces: list[tuple[str, str]] = []
    at = 0
    for found in ACTION.finditer(template):
        pieces += [("text", template[at : found.start()]), ("action", found[1])]
        at = found.end()
    pieces.append(("text", template[at:]))
    nodes, rest = _block([piece for piece in pieces if piece != ("text", "")])
    assert not rest
    return _run(nodes, messages, {"System": system})


def _block(pieces: list[tuple[str, str]]) -> tuple[list[Any], list[tuple[str, str]]]:
    """Parse up to an `end` or `else`, which is left in the rest."""
    nodes: list[Any] = []
    while pieces:
        kind, text = pieces[0]
        if kind == "action" and (text == "end" or text.startswith("else")):
            return nodes, pieces
        pieces = pieces[1:]
        if kind == "action" and text.startswith(("if ", "range ")):
            branches = []
            condition: str | None = text
            while True:
                inner, pieces = _block(pieces)
                branches.append((condition, inner))
                word, pieces = pieces[0][1], pieces[1:]
                if word == "end":
                    break
                condition = word.removeprefix("else ")
            nodes.append(("branch", branches))
        else:
            nodes.append((kind, text))
    return nodes, []


def _run(nodes: list[Any], messages: list[dict[str, str]], scope: dict[str, Any]) -> str:
    written = ""
    for kind, content in nodes:
        if kind == "text":
            written += content
        elif kind == "branch":
            written += _branch(content, messages, scope)
        elif content == ".Content":
            written += scope["message"]["content"]
        elif content == "$last := eq (len (slice $.Messages $i)) 1":
            scope["last"] = len(messages[scope["i"] :]) == 1
        else:
            written += _literal(content)
    return written


def _branch(branches: list[Any], messages: list[dict[str, str]], scope: dict[str, Any]) -> str:
    if branches[0][0] == "range $i, $_ := .Messages":
        return "".join(
            _run(branches[0][1], messages, {**scope, "i": number, "message": message})
            for number, message in enumerate(messages)
        )
    for condition, inner in branches:
        if _holds(condition, scope):
            return _run(inner, messages, scope)
    return ""


def _holds(condition: str, scope: dict[str, Any]) -> bool:
    match condition:
        case "if $last":
            return bool(scope["last"])
        case "if not $last":
            return not scope["last"]
        case "if not .System":
            return not scope["System"]
        case _:
            found = re.fullmatch(r'if eq \.Role "(\w+)"', condition)
            assert found, condition
            return bool(scope["message"]["role"] == found[1])


def _literal(text: str) -> str:
    """Return the value of a Go string literal; \\x and \\U are what JSON does not know."""
    assert text[0] == text[-1] == '"', text
    plain = re.sub(r"\\x([0-9a-f]{2})", lambda found: f"\\u00{found[1]}", text)
    plain = re.sub(r"\\U([0-9a-f]{8})", lambda found: json.dumps(chr(int(found[1], 16)))[1:-1], plain)
    return str(json.loads(plain))
