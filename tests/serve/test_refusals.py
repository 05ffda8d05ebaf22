"""What is refused, with which status code, and that the message says what to do."""

import json
from collections.abc import Callable
from typing import Any

import httpx
import openai
import pytest

from promptopt.errors import ConfigError, LMError
from promptopt.lm.llama_cpp.local_chat import LocalChat
from promptopt.serve.access import KEY_VARIABLE, check_host, key_from_environment
from promptopt.serve.body import MAX_BODY_BYTES
from tests.serve.live_server import NAME, Served, serving

MESSAGES: list[Any] = [{"role": "user", "content": "Question"}]
CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"


def refused(http: httpx.Client, path: str, body: Any) -> tuple[int, dict[str, Any]]:
    # httpx refuses to encode what is no valid Unicode; other clients escape it.
    answer = http.post(path, content=json.dumps(body), headers={"Content-Type": "application/json"})
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return answer.status_code, error


@pytest.mark.parametrize(
    ("more", "param", "says"),
    [
        ({"tools": [{"type": "function"}]}, "tools", "not supported"),
        ({"tool_choice": "required"}, "tool_choice", "not supported"),
        ({"audio": {"voice": "a"}}, "audio", "not supported"),
        ({"modalities": ["text", "audio"]}, "modalities", "not supported"),
        ({"logit_bias": {"5": 1}}, "logit_bias", "not supported"),
        ({"temprature": 1}, "temprature", "temperature"),
        ({"temperature": "hot"}, "temperature", "'hot'; allowed is a number"),
        ({"temperature": True}, "temperature", "True"),
        ({"temperature": -1}, None, "temperature is -1"),
        ({"temperature": 10**400}, "temperature", "allowed is a number"),
        ({"top_p": 2}, None, "top_p is 2"),
        ({"frequency_penalty": 3}, None, "frequency_penalty"),
        ({"n": 0}, "n", "1 to 128"),
        ({"n": 129}, "n", "1 to 128"),
        ({"max_tokens": 0}, None, "max_tokens is 0"),
        ({"max_tokens": 2.5}, "max_tokens", "2.5"),
        ({"max_tokens": 4, "max_completion_tokens": 5}, "max_completion_tokens", "send one"),
        ({"stop": 5}, "stop", "a text or a list of texts"),
        ({"stop": ["a", 5]}, "stop", "a text or a list of texts"),
        ({"stop": ""}, None, "stop"),
        ({"stream": "yes"}, "stream", "true or false"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "stream: true"),
        ({"stream": True, "stream_options": {"other": 1}}, "stream_options", "include_usage"),
        ({"top_logprobs": 3}, "top_logprobs", "logprobs: true"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "0 to 20"),
        ({"response_format": {"type": "yaml"}}, "response_format", "yaml"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}}, "response_format", "schema"),
        ({"response_format": {"type": "json_object"}, "grammar": "root ::= [a]"}, "grammar", "send one"),
        ({"grammar": "root ::= ["}, "grammar", "cannot compile the grammar"),
        ({"grammar": "root ::= [", "stream": True}, "grammar", "cannot compile the grammar"),
        ({"grammar": 'root ::= "a"\x00'}, "grammar", "NUL"),
        ({"grammar": "root ::= " + "(" * 50_000 + '"a"' + ")" * 50_000}, "grammar", "at most 16384"),
        ({"messages": []}, None, "no messages"),
        ({"messages": "hello"}, "messages", "a list of messages"),
        ({"messages": ["hello"]}, "messages", "a list of messages"),
        ({"messages": [{"role": "tool", "content": "a"}]}, "messages[0]", "'tool'; allowed are"),
        ({"messages": [{"role": ["user"], "content": "a"}]}, "messages[0]", "allowed are"),
        ({"messages": [{"role": "user"}]}, "messages[0]", "NoneType"),
        ({"messages": [{"role": "user", "content": "a", "name": "b"}]}, "messages[0]", "'name'"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, None, "Unicode"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            "messages[0]",
            "'image_url'; this model reads text only",
        ),
        ({"messages": [{"role": "assistant", "content": "a"}]}, None, "prefill"),
    ],
)
def test_bad_chats(http: httpx.Client, more: dict[str, Any], param: str | None, says: str) -> None:
    status, error = refused(http, CHAT, {"model": NAME, "messages": MESSAGES, "max_tokens": 2, **more})
    assert (status, error["type"]) == (400, "invalid_request_error")
    assert error["param"] == param
    assert says in error["message"]


@pytest.mark.parametrize(
    ("more", "param", "says"),
    [
        ({"echo": True}, "echo", "not supported"),
        ({"suffix": "end"}, "suffix", "not supported"),
        ({"best_of": 3}, "best_of", "not supported"),
        ({"prompt": [1, 2, 3]}, "prompt", "token ids are not supported"),
        ({"prompt": []}, "prompt", "at least one text"),
        ({"logprobs": 21}, "logprobs", "0 to 20"),
        ({"logprobs": True}, "logprobs", "0 to 20"),
        ({"messages": MESSAGES}, "messages", "not supported"),
        ({"prompt": "\ud800"}, None, "Unicode"),
    ],
)
def test_bad_completions(http: httpx.Client, more: dict[str, Any], param: str | None, says: str) -> None:
    status, error = refused(http, TEXT, {"model": NAME, "prompt": "The", "max_tokens": 2, **more})
    assert (status, error["param"]) == (400, param)
    assert says in error["message"]


def test_missing_fields(http: httpx.Client) -> None:
    assert refused(http, CHAT, {"model": NAME})[1]["param"] == "messages"
    assert refused(http, TEXT, {"model": NAME})[1]["message"].startswith("The field 'prompt' is missing")
    assert http.post(TEXT, json={"prompt": "The", "max_tokens": 1}).status_code == 200


@pytest.mark.parametrize("path", [CHAT, TEXT])
def test_another_model_is_not_found(http: httpx.Client, path: str) -> None:
    asked = {"messages": MESSAGES} if path == CHAT else {"prompt": "a"}
    status, error = refused(http, path, {"model": "gpt-9", **asked})
    assert (status, error["code"], error["param"]) == (404, "model_not_found", "model")
    assert "served is 'tiny'" in error["message"]


def test_a_prompt_that_is_too_long(client: openai.OpenAI) -> None:
    for settings in ({}, {"stream": True}):
        with pytest.raises(openai.BadRequestError) as caught:
            client.chat.completions.create(
                model=NAME,
                messages=[{"role": "user", "content": "東" * 3000}],
                **settings,  # type: ignore[arg-type]
            )
        assert caught.value.code == "context_length_exceeded"
        assert "1024" in str(caught.value)


@pytest.mark.parametrize("body", [b"{", b"[1]", b"null", b"\xff", b'{"a": NaN}', b"[" * 100_000, b""])
def test_bodies_that_are_no_json_object(http: httpx.Client, body: bytes) -> None:
    answer = http.post(CHAT, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert "send one JSON object" in answer.json()["error"]["message"]


def test_large_bodies(http: httpx.Client) -> None:
    status, error = refused(http, CHAT, {"messages": MESSAGES, "user": "x" * MAX_BODY_BYTES})
    assert (status, error["code"]) == (413, "request_too_large")
    assert http.get("/health").status_code == 200


def test_other_types_other_paths_other_methods(http: httpx.Client) -> None:
    plain = http.post(CHAT, content=b"{}", headers={"Content-Type": "text/plain"})
    assert plain.status_code == 415
    assert "Content-Type: application/json" in plain.json()["error"]["message"]
    lost = http.get("/v1/nothing")
    assert lost.status_code == 404
    assert "/v1/nothing" in lost.json()["error"]["message"]
    wrong = http.get(CHAT)
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")


def test_only_loopback_names_without_a_key(server: Served, http: httpx.Client) -> None:
    for host in ("evil.example", "127.0.0.1.evil.example", ""):
        assert http.get("/v1/models", headers={"Host": host}).status_code == 403, host
    for host in ("localhost", "LOCALHOST:80", "127.0.0.1:5", "[::1]:8080"):
        assert http.get("/v1/models", headers={"Host": host}).status_code == 200, host


@pytest.mark.parametrize("key", ["sekret-1", "schlüssel"])
def test_the_key(load: Callable[..., LocalChat], server: Served, key: str, caplog: pytest.LogCaptureFixture) -> None:
    with serving(server.chat, api_key=key) as guarded:
        http = guarded.http()
        wrong: list[dict[str, bytes]] = [{}, {"Authorization": b"Bearer"}, {"Authorization": b"Bearer x"}]
        wrong += [{"Authorization": f"Basic {key}".encode()}, {"Authorization": f"Bearer {key}x".encode()}]
        for headers in wrong:
            for method, path in (("POST", CHAT), ("GET", "/v1/models"), ("GET", "/metrics"), ("GET", "/nothing")):
                answer = http.request(method, path, headers=headers)
                assert answer.status_code == 401, (method, path, headers)
                assert answer.headers["www-authenticate"] == "Bearer"
                assert answer.json()["error"]["code"] == "invalid_api_key"
        right = {"Authorization": f"Bearer {key}".encode()}
        assert http.get("/v1/models", headers={**right, "Host": b"my.machine"}).status_code == 200
        assert http.get("/health").status_code == 200
        if key.isascii():
            assert guarded.client().models.list().data[0].id == NAME
            with pytest.raises(openai.AuthenticationError, match="missing or wrong"):
                guarded.client(api_key="other").models.list()
        assert key not in caplog.text


def test_the_key_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    assert key_from_environment() is None
    monkeypatch.setenv(KEY_VARIABLE, "abc")
    assert key_from_environment() == "abc"
    monkeypatch.setenv(KEY_VARIABLE, " ")
    with pytest.raises(ConfigError, match="set, but empty"):
        key_from_environment()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "my.machine", ""])
def test_other_machines_need_a_key(host: str) -> None:
    with pytest.raises(ConfigError, match=KEY_VARIABLE):
        check_host(host, None)
    check_host(host, "key")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.1.2.3"])
def test_this_machine_needs_none(host: str) -> None:
    check_host(host, None)


class Broken:
    """A model that fails."""

    n_ctx = 64
    parallel = 1

    def __init__(self, error: Exception) -> None:
        self.error = error

    def submit(self, request: Any, **_: Any) -> Any:
        raise self.error


@pytest.mark.parametrize(
    ("error", "says"),
    [(LMError("llama_decode failed with code 2"), "code 2"), (ZeroDivisionError("secret detail"), "its log says why")],
)
def test_a_broken_model_is_a_500(error: Exception, says: str, caplog: pytest.LogCaptureFixture) -> None:
    with serving(Broken(error)) as broken:
        status, found = refused(broken.http(), CHAT, {"messages": MESSAGES})
        assert (status, found["type"]) == (500, "server_error")
        assert says in found["message"]
        assert "secret detail" not in found["message"]
    assert str(error) in caplog.text
    assert ("Traceback" in caplog.text) == isinstance(error, ZeroDivisionError)
