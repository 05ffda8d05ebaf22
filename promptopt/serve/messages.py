"""OpenAI's chat messages as promptopt's: plain texts of known roles. Whatever is no text is refused."""

from collections.abc import Sequence
from typing import Any

from promptopt.serve.failures import RequestRefused

ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
"""OpenAI's roles -> promptopt's. Chat templates know "developer" by its older name."""


def plain_messages(messages: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    """Return `messages` with their contents as text.

    Raises:
        RequestRefused: a message carries more than text, or has a role that is not served.
    """
    return [_plain(f"messages[{number}]", message) for number, message in enumerate(messages)]


def _plain(where: str, message: dict[str, Any]) -> dict[str, str]:
    role = message.get("role")
    if not isinstance(role, str) or role not in ROLES:
        raise RequestRefused(f"{where}.role is {role!r}; allowed are {', '.join(ROLES)}.", param=where)
    # Clients send earlier answers back with empty fields such as "tool_calls": null.
    asked = [name for name, value in message.items() if name not in ("role", "content") and value not in (None, [], {})]
    if asked:
        raise RequestRefused(
            f"{where} has the field {asked[0]!r}, which is not supported here. Leave it out; supported are role and "
            "content.",
            param=where,
            code="unsupported_parameter",
        )
    return {"role": ROLES[role], "content": _text(where, message.get("content"))}


def _text(where: str, content: Any) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise RequestRefused(
            f"{where}.content is of type {type(content).__name__}; allowed is a text, or a list of parts of type text.",
            param=where,
        )
    return "".join(_part(where, part) for part in content)


def _part(where: str, part: Any) -> str:
    kind = part.get("type") if isinstance(part, dict) else type(part).__name__
    if kind == "text" and isinstance(part.get("text"), str):
        return str(part["text"])
    raise RequestRefused(
        f"{where}.content has a part of type {kind!r}; this model reads text only. Send parts like "
        '{"type": "text", "text": "…"}.',
        param=where,
        code="unsupported_content",
    )
