"""A server in this process, on a loopback address, and how to talk to it."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import openai

from promptopt.serve.app import ServeSettings, create_app
from promptopt.serve.http_server import HttpServer, bind, url_of

NAME = "tiny"
ENDLESS = 'root ::= "a" root'
"""A grammar whose text never ends, so that an answer lasts as long as its max_tokens."""


@dataclass
class Served:
    """A server and how to talk to it; `close` ends the clients."""

    url: str
    chat: Any
    server: HttpServer
    key: str = "none"
    stack: ExitStack = field(default_factory=ExitStack)

    def client(self, **settings: Any) -> openai.OpenAI:
        settings = {"api_key": self.key, "max_retries": 0, **settings}
        plain = self.stack.enter_context(httpx.Client(trust_env=False, timeout=60))
        return openai.OpenAI(base_url=f"{self.url}/v1", http_client=plain, **settings)

    def http(self) -> httpx.Client:
        return self.stack.enter_context(httpx.Client(base_url=self.url, trust_env=False, timeout=60))

    def metric(self, name: str, http: httpx.Client | None = None) -> float:
        """Return a counter as GET /metrics shows it."""
        lines = (http or self.http()).get("/metrics").text.splitlines()
        (line,) = [line for line in lines if line.startswith(f"promptopt_{name} ")]
        return float(line.rpartition(" ")[2])


@contextmanager
def serving(chat: Any, grace_s: float = 5, **settings: Any) -> Iterator[Served]:
    taken = bind("127.0.0.1", 0)
    ready = threading.Event()
    app = create_app(chat, ServeSettings(NAME, **settings))
    server = HttpServer(app, taken, on_ready=ready.set, end_requests=lambda: chat.close(), grace_s=grace_s)
    thread = threading.Thread(target=server.serve_until_stopped)
    thread.start()
    try:
        assert ready.wait(30)
        served = Served(url_of(taken), chat, server, settings.get("api_key") or "none")
        with served.stack:
            yield served
    finally:
        server.stop()
        thread.join(30)
        taken.close()
    assert not thread.is_alive()
