"""What a client is told when a request fails: OpenAI's error object, and the status code that belongs to each error.

The one place that decides status codes. Knows nothing about requests or models.
"""

import json
import logging
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from promptopt.errors import (
    BusyError,
    ConfigError,
    ContextLengthError,
    PromptoptError,
    PromptRefusedError,
    RequestTimeoutError,
)

log = logging.getLogger(__name__)

RETRY_AFTER_S = 1
CLIENT_GONE = 499
"""What a request whose client hung up ends with; nobody reads it."""

_STATUS_OF = (
    (ContextLengthError, 400, "invalid_request_error", "context_length_exceeded"),
    (PromptRefusedError, 400, "invalid_request_error", "prompt_refused"),
    (ConfigError, 400, "invalid_request_error", None),
    (BusyError, 429, "rate_limit_error", "busy"),
    (RequestTimeoutError, 504, "timeout_error", "request_timeout"),
    (PromptoptError, 500, "server_error", None),
)


class RequestRefused(Exception):
    """A request that ends here and now, with the answer it gets.

    Attributes:
        status: the HTTP status code.
        param: the field of the request that is at fault.
        code: OpenAI's machine-readable word for it.
    """

    def __init__(self, message: str, *, status: int = 400, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.param = param
        self.code = code


def error_object(
    message: str, *, kind: str = "invalid_request_error", param: str | None = None, code: str | None = None
) -> dict[str, Any]:
    """Return OpenAI's error object."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def described(error: BaseException) -> tuple[int, dict[str, Any]]:
    """Return the status code and the error object of `error`; what nobody foresaw is a 500 that says no details."""
    if isinstance(error, RequestRefused):
        return error.status, error_object(str(error), param=error.param, code=error.code)
    for kind, status, name, code in _STATUS_OF:
        if isinstance(error, kind):
            return status, error_object(str(error), kind=name, code=code)
    return 500, error_object("The server failed; its log says why.", kind="server_error")


def json_response(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return `content` as a JSON response."""
    return Response(json_bytes(content), status, headers, "application/json")


def json_bytes(content: Any) -> bytes:
    """Return `content` as JSON; an error message may quote what is no valid Unicode, which is then escaped."""
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "backslashreplace")


def log_failure(error: Exception, status: int) -> None:
    """Tell whoever runs the server that it failed; what clients did wrong is not logged."""
    if status != 500:
        return
    # Our own errors say what is wrong; the others need their traceback.
    log.error("%s", error, exc_info=None if isinstance(error, PromptoptError) else error)


async def answer_failure(_: Request, error: Exception) -> Response:
    """Starlette's exception handler for our own errors; unforeseen ones are raised again by Starlette, and logged."""
    status, content = described(error)
    if isinstance(error, PromptoptError):
        log_failure(error, status)
    headers = {"Retry-After": str(RETRY_AFTER_S)} if status == 429 else None
    return json_response(content, status, headers)


async def answer_http_exception(request: Request, error: Exception) -> Response:
    """Starlette's exception handler for unknown paths and methods."""
    assert isinstance(error, HTTPException)
    message = f"{request.method} {request.url.path}: {error.detail}. GET /v1/models says what is served here."
    return json_response(error_object(message), error.status_code, dict(error.headers or {}))
