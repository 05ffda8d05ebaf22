"""Many clients at once, clients that leave, and requests that take too long."""

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Event
from typing import Any

import httpx
import openai
import pytest

from promptopt.lm.llama_cpp.local_chat import ChatRequest, LocalChat
from promptopt.lm.llama_cpp.sampling import Sampling
from promptopt.serve.waiting import hand_in
from tests.serve.live_server import ENDLESS, NAME, Served, serving

N_CLIENTS = 32
MESSAGES: list[Any] = [{"role": "user", "content": "Question"}]
CHAT = "/v1/chat/completions"
LONG = {"model": NAME, "messages": MESSAGES, "grammar": ENDLESS}
"""A request that takes as many tokens as the context has room for."""


def wait_for(condition: Callable[[], bool], timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture(scope="module")
def narrow(load: Callable[..., LocalChat]) -> Iterator[Served]:
    """One request runs, two wait, and an answer may be 16000 tokens long."""
    with serving(load(n_ctx=16384, parallel=1, max_waiting=2)) as served:
        yield served


def idle(served: Served, http: httpx.Client) -> bool:
    return served.metric("requests_running", http) == served.metric("requests_waiting", http) == 0


@pytest.mark.parametrize("stream", [False, True])
def test_many_clients_get_their_own_answers(server: Served, stream: bool) -> None:
    asked = [[{"role": "user", "content": f"Question {number}: 12 + {number}"}] for number in range(N_CLIENTS)]
    settings: dict[str, Any] = {"temperature": 1.0, "seed": 1, "max_tokens": 30}
    sampling = Sampling(temperature=1.0, seed=1)
    expected = [server.chat.complete(ChatRequest(messages, 30, sampling)).text for messages in asked]

    async def one(client: openai.AsyncOpenAI, messages: Any) -> str:
        if not stream:
            answer = await client.chat.completions.create(model=NAME, messages=messages, **settings)
            return answer.choices[0].message.content or ""
        chunks = await client.chat.completions.create(model=NAME, messages=messages, stream=True, **settings)
        return "".join([chunk.choices[0].delta.content or "" async for chunk in chunks])

    async def all_at_once() -> list[str]:
        async with httpx.AsyncClient(trust_env=False, timeout=60, limits=httpx.Limits()) as plain:
            client = openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, http_client=plain)
            return await asyncio.gather(*(one(client, messages) for messages in asked))

    assert asyncio.run(all_at_once()) == expected


def test_the_server_answers_while_it_computes(narrow: Served) -> None:
    http = narrow.http()
    with http.stream("POST", CHAT, json={**LONG, "stream": True}) as answer:
        next(answer.iter_lines())
        begin = time.monotonic()
        assert narrow.http().get("/health").status_code == 200
        assert time.monotonic() - begin < 1
    wait_for(lambda: idle(narrow, http))


def test_a_stream_that_is_left_is_freed(narrow: Served) -> None:
    http = narrow.http()
    before = narrow.metric("completion_tokens_total", http)
    with http.stream("POST", CHAT, json={**LONG, "stream": True}) as answer:
        lines = answer.iter_lines()
        while not (line := next(lines)).startswith("data:") or '"content":"a' not in line:
            pass
        assert narrow.metric("requests_running") == 1
    wait_for(lambda: idle(narrow, http))
    assert narrow.metric("completion_tokens_total", http) - before < 16000
    assert http.post(CHAT, json={**LONG, "max_tokens": 2}).status_code == 200


def test_a_request_that_is_left_is_freed(narrow: Served) -> None:
    http = narrow.http()
    before = narrow.metric("completion_tokens_total", http)
    with httpx.Client(base_url=narrow.url, trust_env=False, timeout=0.3) as impatient, pytest.raises(httpx.ReadTimeout):
        impatient.post(CHAT, json=LONG)
    wait_for(lambda: idle(narrow, http))
    assert narrow.metric("completion_tokens_total", http) - before < 16000


def test_a_full_line_is_a_429_and_those_who_leave_it_make_room(narrow: Served) -> None:
    http = narrow.http()
    with httpx.Client(base_url=narrow.url, trust_env=False, timeout=60) as other:
        streams = []
        for _ in range(3):
            request = other.build_request("POST", CHAT, json={**LONG, "stream": True})
            streams.append(other.send(request, stream=True))
            wait_for(lambda: not idle(narrow, http))
        wait_for(lambda: narrow.metric("requests_waiting", http) == 2)
        refused = http.post(CHAT, json=LONG)
        assert refused.status_code == 429
        assert refused.json()["error"]["code"] == "busy"
        assert int(refused.headers["retry-after"]) >= 1
        with pytest.raises(openai.RateLimitError):
            narrow.client().chat.completions.create(model=NAME, messages=MESSAGES, stream=True)
        for stream in streams:
            stream.close()
    wait_for(lambda: idle(narrow, http))
    assert http.post(CHAT, json={**LONG, "max_tokens": 2}).status_code == 200


def test_all_draws_of_a_refused_request_are_given_up(narrow: Served) -> None:
    http = narrow.http()
    refused = http.post(CHAT, json={**LONG, "n": 8})
    assert refused.status_code == 429
    wait_for(lambda: idle(narrow, http))


def test_a_request_that_takes_too_long_is_a_504(narrow: Served) -> None:
    with serving(narrow.chat, timeout_s=0.2) as hasty:
        http = hasty.http()
        late = http.post(CHAT, json=LONG)
        assert late.status_code == 504
        assert late.json()["error"]["code"] == "request_timeout"
        assert "0.2 seconds" in late.json()["error"]["message"]
        wait_for(lambda: idle(hasty, http))
        stream = hasty.client().chat.completions.create(
            model=NAME, messages=MESSAGES, stream=True, extra_body={"grammar": ENDLESS}
        )
        with pytest.raises(openai.APIError, match=r"0\.2 seconds"):
            list(stream)
        wait_for(lambda: idle(hasty, http))


def test_stopping_ends_what_does_not_end_by_itself(load: Callable[..., LocalChat]) -> None:
    with serving(load(n_ctx=16384, parallel=2), grace_s=0.1) as served, ThreadPoolExecutor(2) as threads:
        http = served.http()
        whole = threads.submit(http.post, CHAT, json=LONG)
        stream = threads.submit(http.post, CHAT, json={**LONG, "stream": True})
        other = served.http()
        wait_for(lambda: served.metric("requests_running", other) == 2)
        other.close()
        served.server.stop()
        answer = whole.result(20)
        assert answer.status_code == 500
        assert "was closed" in answer.json()["error"]["message"]
        *_, last = [line for line in stream.result(20).text.splitlines() if line]
        assert "was closed" in json.loads(last.removeprefix("data: "))["error"]["message"]


def test_what_is_handed_in_too_late_is_given_up() -> None:
    class Pending:
        def __init__(self) -> None:
            self.future: Future[Any] = Future()
            self.cancel = self.future.cancel

    class Slow:
        def __init__(self) -> None:
            self.may_go, self.asked, self.pending = Event(), Event(), Pending()

        def submit(self, request: Any, **_: Any) -> Pending:
            self.asked.set()
            assert self.may_go.wait(10)
            return self.pending

    slow: Any = Slow()

    async def leave_early(threads: ThreadPoolExecutor) -> None:
        task = asyncio.create_task(hand_in(slow, [ChatRequest(MESSAGES, 1, Sampling())], threads))
        while not slow.asked.is_set():
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait({task})

    with ThreadPoolExecutor(1) as threads:
        asyncio.run(leave_early(threads))
        assert not slow.pending.future.cancelled()
        slow.may_go.set()
    assert slow.pending.future.cancelled()
