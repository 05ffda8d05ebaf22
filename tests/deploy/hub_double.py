"""A Hub on this machine: as much of its HTTP interface as an upload uses, and a memory of what was asked."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_a_secret_for_tests"


@dataclass
class Hub:
    """What the Hub knows.

    Attributes:
        repositories: name -> whether private.
        files: name in the repository -> content, of the last commit.
        calls: method and path of every request, in order.
        allows: what a token may do: "write", "read" or nothing.
        large: contents of large files, by digest; full: whether no more are taken.
    """

    url: str = ""
    repositories: dict[str, bool] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    allows: dict[str, str] = field(default_factory=lambda: {TOKEN: "write"})
    large: dict[str, bytes] = field(default_factory=dict)
    full: bool = False


@contextmanager
def running() -> Iterator[Hub]:
    """Serve a Hub on a free port of 127.0.0.1."""
    hub = Hub()

    class Handler(_Handler):
        state = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    state: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self._answer(b"")

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers.get("Content-Length", 0))))

    do_PUT = do_POST

    def _answer(self, body: bytes) -> None:
        path = self.path.partition("?")[0]
        self.state.calls.append(f"{self.command} {path}")
        if path.startswith("/store/"):
            if self.state.full:
                return self._send(413, {"error": "full"})
            digest = path.removeprefix("/store/")
            assert hashlib.sha256(body).hexdigest() == digest
            self.state.large[digest] = body
            return self._send(200, {})
        allowed = self.state.allows.get(self.headers.get("Authorization", "").removeprefix("Bearer "), "")
        if not allowed:
            return self._send(401, {"error": "Invalid credentials in Authorization header"})
        if self.command != "GET" and allowed != "write":
            return self._send(403, {"error": "You don't have the rights"})
        return self._repository(path, body)

    def _repository(self, path: str, body: bytes) -> None:
        state = self.state
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            state.repositories[name] = asked.get("visibility") == "private"
            return self._send(200, {"url": f"{state.url}/{name}"})
        if path == "/api/validate-yaml":
            return self._send(200, {"errors": [], "warnings": []})
        name = "/".join(path.removeprefix("/api/models/").strip("/").split("/")[:2]).removesuffix(".git")
        if name not in state.repositories:
            return self._send(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        if path.endswith("/preupload/main"):
            files = [
                {"path": one["path"], "uploadMode": "lfs" if one["path"].endswith((".gguf", ".safetensors")) else
                 "regular", "shouldIgnore": False, "oid": None}
                for one in json.loads(body)["files"]
            ]  # fmt: skip
            return self._send(200, {"files": files})
        if path.endswith("/info/lfs/objects/batch"):
            objects = [
                {**one, "actions": {"upload": {"href": f"{state.url}/store/{one['oid']}"}}}
                for one in json.loads(body)["objects"]
            ]
            return self._send(200, {"transfer": "basic", "objects": objects})
        if path.endswith("/commit/main"):
            self._commit(body)
            return self._send(
                200, {"commitUrl": f"{state.url}/{name}/commit/abc", "commitOid": "abc", "pullRequestUrl": None}
            )
        return self._send(200, {"id": name, "private": state.repositories[name], "siblings": [], "sha": "abc"})

    def _commit(self, body: bytes) -> None:
        for line in body.splitlines():
            operation = json.loads(line)
            value = operation["value"]
            if operation["key"] == "file":
                self.state.files[value["path"]] = base64.b64decode(value["content"])
            elif operation["key"] == "lfsFile":
                self.state.files[value["path"]] = self.state.large[value["oid"]]

    def _send(self, status: int, value: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        for name, text in {
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            **(headers or {}),
        }.items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(body)
