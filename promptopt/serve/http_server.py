"""A uvicorn server on one socket: bound early, started late, stopped by signals or by another thread."""

import asyncio
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp

from promptopt.errors import ConfigError

GRACE_S = 5.0
"""Seconds that running requests get to finish after a signal to stop."""
LAST_RESORT_S = 10
"""Seconds more until connections are cut that still do not end."""


def bind(host: str, port: int) -> socket.socket:
    """Take an address without listening yet, so that a port in use is known before a model is loaded.

    Args:
        port: 0 = any free port.

    Raises:
        ConfigError: the address cannot be had.
    """
    if not 0 <= port <= 65535:
        raise ConfigError(f"The port is {port}; allowed are numbers from 0 (any free port) to 65535.")
    bare = host.strip("[]")
    taken = socket.socket(socket.AF_INET6 if ":" in bare else socket.AF_INET, socket.SOCK_STREAM)
    try:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind((bare, port))
    except OSError as error:
        taken.close()
        raise ConfigError(
            f"Cannot serve on {host}:{port}: {error.strerror or error}. Name another --host or --port (0 takes any "
            "free port)."
        ) from error
    return taken


def url_of(taken: socket.socket) -> str:
    """Return the address of a bound socket as a URL."""
    host, port = taken.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class HttpServer(uvicorn.Server):
    """Serves `app` on `taken` until a signal comes or `stop` is called.

    Args:
        on_ready: called when requests are answered.
        end_requests: called where requests still run `grace_s` seconds after the signal; makes them fail.
    """

    def __init__(
        self,
        app: ASGIApp,
        taken: socket.socket,
        *,
        on_ready: Callable[[], None],
        end_requests: Callable[[], None],
        grace_s: float = GRACE_S,
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                loop="asyncio",
                http="h11",
                ws="none",
                lifespan="off",
                log_config=None,
                log_level="warning",
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_graceful_shutdown=round(grace_s) + LAST_RESORT_S,
            )
        )
        self._taken = taken
        self._on_ready = on_ready
        self._end_requests = end_requests
        self._grace_s = grace_s

    def serve_until_stopped(self) -> None:
        """Block until the server has stopped; SIGINT and SIGTERM are an orderly end, not an error."""
        with _quiet_signals():
            self.run([self._taken])

    def stop(self) -> None:
        """End the server, from any thread."""
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then say so."""
        await super().startup(sockets)
        self._on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let running requests finish, but not for ever."""
        loop = asyncio.get_running_loop()
        timer = loop.call_later(self._grace_s, lambda: loop.run_in_executor(None, self._end_requests))
        try:
            await super().shutdown(sockets)
        finally:
            timer.cancel()


@contextmanager
def _quiet_signals() -> Iterator[None]:
    """Swallow what uvicorn raises again after it has stopped."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
