"""A chat template reduced to what stands around each message, for runtimes that do not run Jinja.

The template is a program; asked with probe messages whose contents are marks, it shows what it writes between them.
If the same pieces give the same text for all probes, and for the very messages that will be served, the template is
those pieces; if not, it is refused. Source of the idea: Ollama's own templates are such pieces.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from promptopt.errors import ExportError, PromptRefusedError
from promptopt.lm.protocol import Messages

Render = Callable[[Messages], str]

_PROBES = (
    ("user",), ("system", "user"), ("user", "assistant", "user"), ("system", "user", "assistant", "user"),
    ("user", "assistant", "user", "assistant", "user"), ("system", "user", "assistant", "user", "assistant", "user"),
)  # fmt: skip


@dataclass(frozen=True)
class ChatFormat:
    """What a chat template writes around messages.

    Attributes:
        start: before everything; start_without_system: after it, where the first message is not the system's.
        before, after: role -> text around its messages. A role that the template refuses is not there.
        generation: after the last message, where the model is to answer.
        trimmed: roles whose contents are written without outer white space.
    """

    start: str
    start_without_system: str
    before: Mapping[str, str]
    after: Mapping[str, str]
    generation: str
    trimmed: frozenset[str] = frozenset()

    def render(self, messages: Messages) -> str:
        """Return the text of a prompt whose roles are all known and whose last message is not the assistant's."""
        parts = [self.start, "" if messages[0]["role"] == "system" else self.start_without_system]
        for message in messages:
            role = message["role"]
            parts += [self.before[role], self.content(message), self.after[role]]
        return "".join([*parts, self.generation])

    def content(self, message: Mapping[str, str]) -> str:
        """Return a message's content as it is written."""
        return message["content"].strip() if message["role"] in self.trimmed else message["content"]


def reduce_template(render: Render, source: str, served: Sequence[Messages]) -> ChatFormat:
    """Return the pieces of a chat template.

    Args:
        render: the template with its special tokens; raises PromptRefusedError for messages it does not take.
        source: its Jinja text.
        served: prompts that must come out as the template writes them.

    Raises:
        ExportError: the template is more than pieces around messages, or refuses what is to be served.
    """
    if "strftime_now" in source:
        raise ExportError("The chat template writes today's date, which pieces around messages cannot.")
    question = _gaps(render, ("user",))
    if question is None:
        raise ExportError("The chat template refuses a single user message.")
    dialogue = _gaps(render, ("user", "assistant", "user"))
    try:
        made = _checked(_pieces(question, dialogue, _gaps(render, ("system", "user"))), render)
    except ExportError:
        # Some templates move the system message about; without one they may still be plain.
        made = _checked(_pieces(question, dialogue, None), render)
    for messages in served:
        lacking = {message["role"] for message in messages} - made.before.keys()
        if lacking:
            raise ExportError(
                f"The chat template does not write {', '.join(sorted(lacking))} messages as texts in their places. A "
                "layout with system_role: merged, or demo_placement: block, does without them."
            )
        _check(made, render, messages)
    return made


def _checked(made: ChatFormat, render: Render) -> ChatFormat:
    made = _with_trimmed(made, render)
    for roles in _PROBES:
        if made.before.keys() >= set(roles):
            _check(made, render, [{"role": role, "content": _mark(n)} for n, role in enumerate(roles)])
            _check(made, render, [{"role": role, "content": f" \n{_mark(n)}\n\n x "} for n, role in enumerate(roles)])
    return made


def _pieces(question: list[str], dialogue: list[str] | None, guided: list[str] | None) -> ChatFormat:
    """Split what stands between messages into what belongs to the one before and to the one after.

    Whatever comes before a user message ends alike, and what comes after one begins alike; where exactly a text is cut
    does not matter, because the parts always meet again.
    """
    to_user = [question[0], *([dialogue[2]] if dialogue else []), *([guided[1]] if guided else [])]
    from_user = [question[1], *([dialogue[1]] if dialogue else [])]
    before_user, after_user = _from_token(_common_end(to_user)), _common_start(from_user)
    before, after = {"user": before_user}, {"user": after_user}
    if dialogue:
        before["assistant"] = dialogue[1].removeprefix(after_user)
        after["assistant"] = dialogue[2].removesuffix(before_user)
    opening = question[0].removesuffix(before_user)
    start = opening if guided is None or guided[0].startswith(opening) else ""
    if guided:
        before["system"] = guided[0].removeprefix(start)
        after["system"] = guided[1].removesuffix(before_user)
    return ChatFormat(start, opening.removeprefix(start), before, after, question[1].removeprefix(after_user))


def _with_trimmed(made: ChatFormat, render: Render) -> ChatFormat:
    trimmed = set()
    for roles in (("user",), ("user", "assistant", "user"), ("system", "user")):
        if made.before.keys() >= set(roles):
            contents = [f"\t\n {_mark(number)} \n\t" for number in range(len(roles))]
            text = _rendered(
                render, [{"role": role, "content": one} for role, one in zip(roles, contents, strict=True)]
            )
            trimmed |= {role for role, one in zip(roles, contents, strict=True) if text is not None and one not in text}
    return replace(made, trimmed=frozenset(trimmed))


def _check(made: ChatFormat, render: Render, messages: Messages) -> None:
    expected = _rendered(render, messages)
    if expected is not None and made.render(messages) != expected:
        roles = ", ".join(message["role"] for message in messages)
        raise ExportError(
            f"The chat template does more than write texts around messages (seen with {roles}), so it cannot be said "
            "without Jinja."
        )


def _gaps(render: Render, roles: Sequence[str]) -> list[str] | None:
    """Return the texts before, between and after the contents; None where the template refuses these roles.

    Raises:
        ExportError: a content is not written once, in its place.
    """
    text = _rendered(render, [{"role": role, "content": _mark(number)} for number, role in enumerate(roles)])
    if text is None:
        return None
    gaps = []
    for number in range(len(roles)):
        gap, found, text = text.partition(_mark(number))
        if not found:
            raise ExportError(f"The chat template does not write {', '.join(roles)} messages in their order.")
        gaps.append(gap)
    return [*gaps, text]


def _rendered(render: Render, messages: Messages) -> str | None:
    try:
        return render(messages)
    except PromptRefusedError:
        return None


def _mark(number: int) -> str:
    return f"Qx{number}zQ"


def _from_token(text: str) -> str:
    """Return `text` from its first control token, so that no token is cut in two; readers thank for it."""
    found = re.search(r"[<\[]", text)
    return text[found.start() :] if found else text


def _common_end(texts: Sequence[str]) -> str:
    return _common_start([text[::-1] for text in texts])[::-1]


def _common_start(texts: Sequence[str]) -> str:
    shortest = min(texts, key=len)
    return next(
        (shortest[:n] for n in range(len(shortest), 0, -1) if all(t.startswith(shortest[:n]) for t in texts)), ""
    )
