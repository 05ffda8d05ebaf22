"""Who may ask: the API key from the environment, the addresses that may be bound, and the check of every request.

The key is read once, compared in constant time, and appears in no message and no log.
"""

import hmac
import ipaddress
import os

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from promptopt.errors import ConfigError
from promptopt.serve.failures import error_object, json_response

KEY_VARIABLE = "PROMPTOPT_API_KEY"
OPEN_PATHS = frozenset({"/health"})
"""Paths that say nothing about the model or its users: health checks carry no key."""


def key_from_environment() -> str | None:
    """Return the API key that clients must send, or None where none is set.

    Raises:
        ConfigError: the variable is set, but empty: somebody meant to set a key.
    """
    key = os.environ.get(KEY_VARIABLE)
    if key is None:
        return None
    if not key.strip():
        raise ConfigError(f"{KEY_VARIABLE} is set, but empty. Give it the key that clients must send, or unset it.")
    return key


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_host(host: str, key: str | None) -> None:
    """Raise ConfigError where other machines could ask without a key."""
    if key is None and not is_loopback(host):
        raise ConfigError(
            f"--host is {host!r}, which other machines can reach, and no API key is set. Set {KEY_VARIABLE} in the "
            "environment to the key that clients must send, or serve this machine only (--host 127.0.0.1)."
        )


class Guard:
    """ASGI middleware that turns away whoever may not ask.

    With a key, requests must carry it. Without one, they must address this machine by a loopback name: a web page whose
    name was made to point at 127.0.0.1 then cannot reach the model through its visitor's browser.
    """

    def __init__(self, app: ASGIApp, key: str | None) -> None:
        self._app = app
        self._key = None if key is None else key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer it with 401 or 403."""
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if self._key is not None and not self._has_key(headers):
            message = "The API key is missing or wrong. Send the header 'Authorization: Bearer KEY'."
            content = error_object(message, kind="authentication_error", code="invalid_api_key")
            await json_response(content, 401, {"WWW-Authenticate": "Bearer"})(scope, receive, send)
        elif self._key is None and not is_loopback(_host_name(headers.get("host", ""))):
            message = (
                f"The request addresses {headers.get('host', '')!r}; without an API key only 127.0.0.1, localhost and "
                f"[::1] are served. Use one of them, or start the server with {KEY_VARIABLE} set."
            )
            await json_response(error_object(message, code="host_refused"), 403)(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _has_key(self, headers: Headers) -> bool:
        assert self._key is not None
        scheme, _, sent = headers.get("authorization", "").partition(" ")
        # Starlette reads header bytes as latin-1; a key may have other letters.
        return scheme.lower() == "bearer" and hmac.compare_digest(sent.strip().encode("latin-1"), self._key)


def _host_name(header: str) -> str:
    """Return a Host header without its port."""
    name = header.partition("]")[0] if header.startswith("[") else header.partition(":")[0]
    return name.lower()
