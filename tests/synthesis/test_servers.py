"""Teachers that are real: OpenAI-compatible servers over HTTP on loopback, and a GGUF in this process.

The models are tiny and random, so they write no row; what is proved is that every reply is fetched, counted, judged,
kept, and never fetched twice.
"""

import importlib.util
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import httpx
import pytest
import yaml

from promptopt.cli import main as cli
from promptopt.lm.llama_cpp.local_chat import LocalChat
from promptopt.lm.llama_cpp.model import LoadOptions
from tests.fixtures_gguf import write_tiny_gguf
from tests.serve.live_server import serving

SERVER_NEEDS = ("fastapi", "sse_starlette", "starlette_context", "pydantic_settings", "uvicorn")
missing = [name for name in SERVER_NEEDS if importlib.util.find_spec(name) is None]


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_gguf(tmp_path_factory.mktemp("teacher") / "tiny.gguf", n_ctx_train=8192)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    (tmp_path / "docs").mkdir()
    for name in ("leave", "pay", "travel"):
        (tmp_path / "docs" / f"{name}.md").write_text(f"# {name}\n\nRequests for {name} go to Maria Jensen by Monday.")
    return tmp_path


@contextmanager
def _llama_cpp_server(gguf: Path) -> Iterator[str]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    command = [
        sys.executable, "-m", "llama_cpp.server", "--model", gguf, "--host", "127.0.0.1", "--port", str(port),
        "--n_ctx", "4096", "--n_threads", "1", "--n_threads_batch", "1", "--verbose", "false",
    ]  # fmt: skip
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_API_KEY")}
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + 90
            with httpx.Client(trust_env=False, base_url=f"http://127.0.0.1:{port}") as http:
                while True:
                    assert process.poll() is None, "the server ended"
                    assert time.monotonic() < deadline, "the server did not start"
                    try:
                        http.get("/v1/models").raise_for_status()
                        break
                    except httpx.HTTPError:
                        time.sleep(0.2)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.kill()


@contextmanager
def _own_server(gguf: Path) -> Iterator[str]:
    chat = LocalChat(gguf, LoadOptions(n_ctx=4096, n_threads=1, parallel=2))
    try:
        with serving(chat) as served:
            yield f"{served.url}/v1"
    finally:
        chat.close()


def _write(teacher: dict[str, object], **changes: object) -> str:
    values = {
        "name": "docs",
        "task": "question_answer",
        "source": {"kind": "documents", "path": "docs"},
        "teacher": teacher,
        "rows": 3,
        "attempts_per_row": 2,
        "max_tokens": 12,
        "parallel": 2,
        **changes,
    }
    Path("synthesis.yaml").write_text(yaml.safe_dump(values))
    return "synthesis.yaml"


def _fails(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert cli.main(["data", "synthesize", *arguments]) == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return said


@pytest.mark.parametrize(
    "server",
    [
        pytest.param(
            _llama_cpp_server,
            marks=pytest.mark.skipif(bool(missing), reason=f"llama-cpp-python's server needs {', '.join(missing)}"),
        ),
        _own_server,
    ],
    ids=["llama-cpp-python", "promptopt"],
)
def test_a_server_over_http_is_asked_once_for_each_reply(
    server: Callable[[Path], AbstractContextManager[str]], gguf: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with server(gguf) as url:
        asked = _write({"kind": "server", "model": "openai/tiny", "api_base": url})
        said = _fails(capsys, asked)
    assert re.search(r"None of 6 replies of openai/tiny gave a row \((cut_off|not_parsed) \d", said)
    out = folder / "synthetic" / "docs"
    replies = [json.loads(line) for line in (out / "attempts.jsonl").read_text().splitlines()]
    assert sorted(reply["document"] for reply in replies) == sorted(["leave.md", "pay.md", "travel.md"] * 2)
    counts = [(reply["prompt_tokens"], reply["completion_tokens"]) for reply in replies]
    # llama-cpp-python's server does not know `max_completion_tokens`, as DSPy's client calls the limit.
    assert all(prompt > 300 and answer > 0 for prompt, answer in counts), counts
    report = json.loads((out / "report.json").read_text())
    assert (report["calls"], report["calls_now"], sum(report["rejected"].values())) == (6, 6, 6)
    assert report["prompt_tokens"] == sum(reply["prompt_tokens"] for reply in replies)
    # The server is gone: the same command only reads.
    assert _fails(capsys, asked) == said
    again = json.loads((out / "report.json").read_text())
    assert (again["calls"], again["calls_now"]) == (6, 0)
    # A third try wants replies that nobody has given yet.
    said = _fails(capsys, asked, "--rows", "4")
    assert re.match(r"promptopt: The teacher openai/tiny does not answer: .*connect.*again\.$", said.strip())


def test_a_gguf_and_a_seed_give_the_same_replies(gguf: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def replies(out: str) -> dict[tuple[str, int], str]:
        asked = _write({"kind": "gguf", "path": str(gguf), "n_ctx": 1024}, rows=2, attempts_per_row=1)
        assert "replies of tiny.gguf gave a row (cut_off " in _fails(capsys, asked, "--out", out)
        lines = [json.loads(line) for line in Path(out, "attempts.jsonl").read_text().splitlines()]
        return {(line["document"], line["visit"]): line["completion"] for line in lines}

    first = replies("a")
    assert len(first) == 2
    assert all(text.lstrip().startswith("{") for text in first.values()), "the grammar holds"
    assert replies("b") == first


def test_what_is_wrong_is_said_in_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nobody: dict[str, object] = {"kind": "server", "model": "openai/x", "api_base": "http://127.0.0.1:9/v1"}
    for said, wanted in (
        (_fails(capsys, _write(nobody)), "The teacher openai/x does not answer: "),
        (_fails(capsys, "nowhere.yaml"), "There is no synthesis file 'nowhere.yaml'"),
        (_fails(capsys, _write(nobody), "--rows", "0"), "--rows is 0"),
        (_fails(capsys, _write({"kind": "gguf", "path": "none.gguf"})), "none.gguf"),
        (_fails(capsys, _write(nobody, checks={"metric": "answer_f2"})), "There is no metric 'answer_f2'"),
    ):
        assert wanted in said
        assert len(said.strip().splitlines()) == 1, said
    assert "no data file 'gone'" in _fails(capsys, _write(nobody, source={"kind": "documents", "path": "gone"}))
    (folder / "empty").mkdir()
    said = _fails(capsys, _write(nobody, source={"kind": "documents", "path": "empty"}))
    assert said == "promptopt: empty holds no document. It needs at least one file of .docx, .md, .pdf, .txt.\n"
    assert "fields ['text'] are not known" in _fails(capsys, _write(nobody, fields={"text": "text"}))
