"""Two servers over HTTP, each in a process of its own: llama-cpp-python's under 8 threads, llama.cpp's with slots."""

import http.client
import importlib.util
import json
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from engine_bench.drive import Answer, from_threads
from engine_bench.sides import Setup, SideMissing
from engine_bench.workloads import Workload

START_S = 120.0
ANSWER_S = 600.0
PYTHON_SERVER_CLIENTS = 8
PYTHON_SERVER_NEEDS = ("fastapi", "uvicorn", "sse_starlette", "starlette_context", "pydantic_settings")


class Process:
    """A server on a free port of this machine.

    Args:
        command: without the port.
        ready: a path that answers 200 as soon as the model is loaded.
    """

    def __init__(self, command: list[str], ready: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self._folder = tempfile.TemporaryDirectory()
        self._log = Path(self._folder.name) / "log"
        with self._log.open("wb") as log:
            self._child = subprocess.Popen(
                [*command, "--port", str(self.port)], stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )
        try:
            self._wait(ready)
        except BaseException:
            self.close()
            raise

    def _wait(self, ready: str) -> None:
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self._child.poll() is None:
            try:
                connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
                connection.request("GET", ready)
                if connection.getresponse().status == 200:
                    return
            except OSError:
                pass
            time.sleep(0.1)
        last = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-3:]
        raise SideMissing(f"the server did not start: {' | '.join(last) or 'no output'}")

    def close(self) -> None:
        self._child.terminate()
        try:
            self._child.wait(10)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        self._folder.cleanup()


class Connections:
    """JSON over HTTP to one port, one kept connection per thread."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._mine = threading.local()

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Return the answer.

        Raises:
            RuntimeError: the server refused.
        """
        if not hasattr(self._mine, "connection"):
            self._mine.connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=ANSWER_S)
        connection: http.client.HTTPConnection = self._mine.connection
        connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        data = response.read()
        if response.status != 200:
            raise RuntimeError(f"POST {path} gave {response.status}: {data[:300]!r}")
        answer: dict[str, Any] = json.loads(data)
        return answer


class LlamaCppPythonServer:
    """`python -m llama_cpp.server`, which answers one request at a time; it takes text only."""

    def __init__(self, setup: Setup) -> None:
        missing = [name for name in PYTHON_SERVER_NEEDS if importlib.util.find_spec(name) is None]
        if missing:
            raise SideMissing(f"pip install {' '.join(name.replace('_', '-') for name in missing)}")
        command = [
            sys.executable, "-m", "llama_cpp.server", "--model", str(setup.path), "--n_ctx", str(setup.n_ctx),
            "--n_threads", str(setup.threads), "--n_threads_batch", str(setup.threads),
            "--n_gpu_layers", str(setup.n_gpu_layers), "--logits_all", "false", "--verbose", "false",
        ]  # fmt: skip
        self._setup = setup
        self._process = Process(command, "/v1/models")
        self._connections = Connections(self._process.port)

    def run(self, workload: Workload) -> list[Answer]:
        return from_threads(workload, [self._ask] * PYTHON_SERVER_CLIENTS)

    def _ask(self, prompt: tuple[int, ...], max_tokens: int) -> Answer:
        body = {"prompt": self._setup.text(prompt), "max_tokens": max_tokens, "temperature": 0.0, "repeat_penalty": 1.0}
        text = self._connections.post("/v1/completions", body)["choices"][0]["text"]
        tokens = self._setup.chat.tokenize(text, special=False) if text else []
        return Answer(prompt, tuple(tokens), text=text)

    def kv_bytes(self) -> int:
        return self._setup.n_ctx * self._setup.chat.model.kv_bytes_per_token

    def close(self) -> None:
        self._process.close()


class LlamaServer:
    """llama.cpp's own server: continuous batching over `slots` slots, each with its own cached prompt."""

    def __init__(self, setup: Setup) -> None:
        if setup.llama_server is None:
            raise SideMissing("build llama.cpp's llama-server and name it with --llama-server PATH")
        command = [
            str(setup.llama_server), "--model", str(setup.path), "--parallel", str(setup.slots),
            "--ctx-size", str(setup.slots * setup.n_ctx), "--threads", str(setup.threads),
            "--threads-batch", str(setup.threads), "--n-gpu-layers", str(setup.n_gpu_layers),
        ]  # fmt: skip
        self._setup = setup
        self._process = Process(command, "/health")
        self._connections = Connections(self._process.port)

    def run(self, workload: Workload) -> list[Answer]:
        return from_threads(workload, [self._ask] * max(self._setup.slots, workload.clients))

    def _ask(self, prompt: tuple[int, ...], max_tokens: int) -> Answer:
        body = {
            "prompt": prompt, "n_predict": max_tokens, "temperature": 0.0, "top_k": 1, "samplers": ["top_k"],
            "cache_prompt": True, "return_tokens": True,
        }  # fmt: skip
        made = self._connections.post("/completion", body)
        tokens = tuple(token for token in made["tokens"] if not self._setup.ends(token))
        return Answer(prompt, tokens, made.get("timings", {}).get("prompt_n"))

    def kv_bytes(self) -> int:
        return self._setup.slots * self._setup.n_ctx * self._setup.chat.model.kv_bytes_per_token

    def close(self) -> None:
        self._process.close()
