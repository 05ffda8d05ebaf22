"""The JSON body of a request, read within limits."""

import json
from typing import Any

from starlette.requests import Request

from promptopt.serve.failures import RequestRefused

MAX_BODY_BYTES = 8 << 20


async def read_json(request: Request) -> dict[str, Any]:
    """Return the JSON object that the request carries.

    Raises:
        RequestRefused: it is too large, or no JSON object, or not declared as one.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        # Browsers let any web page send other types without asking this server first.
        raise RequestRefused(
            f"The Content-Type is {kind!r}; send the header 'Content-Type: application/json'.",
            status=415,
            code="unsupported_media_type",
        )
    data = await _read_bytes(request)
    try:
        found = json.loads(data, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise RequestRefused(f"The body is no JSON ({error}); send one JSON object.", code="invalid_json") from error
    if b"\\u" in data and not _is_unicode(found):
        raise RequestRefused("A text of the body is no valid Unicode (half a surrogate pair); repair it.")
    if not isinstance(found, dict):
        raise RequestRefused(f"The body is JSON of type {type(found).__name__}; send one JSON object.")
    return found


async def _read_bytes(request: Request) -> bytes:
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > MAX_BODY_BYTES:
            raise RequestRefused(
                f"The body has more than {MAX_BODY_BYTES} bytes. Shorten it, or send several requests.",
                status=413,
                code="request_too_large",
            )
    return bytes(data)


def _is_unicode(found: Any) -> bool:
    try:
        json.dumps(found, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")
