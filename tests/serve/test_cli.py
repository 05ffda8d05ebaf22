"""`promptopt serve` as a process: what it says, how it ends, what it refuses."""

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from promptopt.cli.main import main
from promptopt.serve.access import KEY_VARIABLE

READY = re.compile(r"promptopt serve: (http://\S+)/v1 \(model (\S+), parallel (\d+)\)\n")


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)


@pytest.mark.parametrize(
    ("sent", "more"), [(signal.SIGINT, []), (signal.SIGTERM, []), (signal.SIGTERM, ["--isolated"])]
)
def test_it_serves_until_a_signal_comes(
    gguf_path: Path, repository: Path, sent: signal.Signals, more: list[str]
) -> None:
    command = [sys.executable, "-m", "promptopt", "serve", gguf_path, "--port", "0", "--n-threads", "1"]
    command += ["--n-ctx", "256", "--parallel", "2", *more]
    environment = {**os.environ, KEY_VARIABLE: "sekret"}
    with subprocess.Popen(
        command, cwd=repository, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            found = READY.fullmatch(process.stdout.readline())
            assert found is not None
            assert found.groups()[1:] == ("tiny", "2")
            with httpx.Client(base_url=found[1], trust_env=False, timeout=30) as http:
                assert http.get("/v1/models").status_code == 401
                body = {"prompt": "The quick", "max_tokens": 3}
                answer = http.post("/v1/completions", json=body, headers={"Authorization": "Bearer sekret"})
                assert answer.json()["model"] == "tiny"
            process.send_signal(sent)
            out, err = process.communicate(timeout=30)
        finally:
            process.kill()
    assert (process.returncode, out, err) == (0, "", "")


def test_a_port_in_use_is_said_before_the_model_is_loaded(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["serve", "no-such.gguf", "--port", str(port)]) == 2
    message = capsys.readouterr().err
    assert f"127.0.0.1:{port}" in message
    assert "--port" in message


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--host", "0.0.0.0"], KEY_VARIABLE),
        (["--port", "70000"], "70000"),
        (["--port", "0", "--timeout-s", "0"], "--timeout-s is 0"),
        (["--port", "0"], "no-such.gguf"),
    ],
)
def test_what_is_refused(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "no-such.gguf", *arguments]) == 2
    assert says in capsys.readouterr().err


def test_help_imports_no_server(repository: Path) -> None:
    script = (
        "import sys\nfrom promptopt.cli.main import main\n"
        "try:\n    main(['serve', '--help'])\nexcept SystemExit as stop:\n    assert not stop.code\n"
        "print('HEAVY', sorted(set(sys.modules) & {'starlette', 'uvicorn', 'pydantic', 'asyncio', 'llama_cpp'}))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=repository, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "HEAVY []"
