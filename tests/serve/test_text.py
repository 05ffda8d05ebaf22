"""/v1/completions, /v1/models, /v1/embeddings, /health and /metrics."""

import base64
import math
import struct
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from promptopt.lm.llama_cpp.local_chat import ChatRequest
from promptopt.lm.llama_cpp.sampling import Sampling
from tests.serve.live_server import NAME, Served, serving

PROMPT = "The quick brown fox"


def complete(client: openai.OpenAI, prompt: Any = PROMPT, **settings: Any) -> Any:
    return client.completions.create(model=NAME, prompt=prompt, **settings)


def direct(server: Served, prompt: str, max_tokens: int = 16, **settings: Any) -> Any:
    return server.chat.complete(ChatRequest(prompt, max_tokens, Sampling(**settings)))


def test_a_prompt_is_continued_as_it_is(server: Served, client: openai.OpenAI) -> None:
    answer = complete(client)
    expected = direct(server, PROMPT)
    assert answer.object == "text_completion"
    assert [choice.text for choice in answer.choices] == [expected.text]
    assert answer.choices[0].finish_reason == expected.finish_reason
    assert answer.usage.completion_tokens == expected.completion_tokens <= 16
    assert answer.usage.prompt_tokens == expected.prompt_tokens


def test_several_prompts_and_draws_keep_their_order(server: Served, client: openai.OpenAI) -> None:
    prompts = [PROMPT, "東京は日本の", "12 + 30"]
    answer = complete(client, prompts, n=2, temperature=1.0, seed=5, max_tokens=12)
    alone = [complete(client, prompt, n=2, temperature=1.0, seed=5, max_tokens=12) for prompt in prompts]
    assert [choice.text for choice in answer.choices] == [choice.text for one in alone for choice in one.choices]
    assert [choice.index for choice in answer.choices] == list(range(6))
    assert answer.choices[0].text != answer.choices[1].text
    assert answer.choices[2].text == direct(server, prompts[1], 12, temperature=1.0, seed=5).text
    assert answer.usage.prompt_tokens == sum(one.usage.prompt_tokens for one in alone)


def test_logprobs(client: openai.OpenAI) -> None:
    choice = complete(client, logprobs=2).choices[0]
    found = choice.logprobs
    assert len(found.tokens) == len(found.token_logprobs) == len(found.top_logprobs) == len(found.text_offset)
    for token, logprob, top in zip(found.tokens, found.token_logprobs, found.top_logprobs, strict=True):
        assert len(top) == 2
        assert top[token] == logprob == max(top.values())
    assert found.text_offset[0] == 0
    assert found.text_offset == sorted(found.text_offset)


def test_a_stream_says_the_same(client: openai.OpenAI) -> None:
    settings: dict[str, Any] = {"max_tokens": 60, "temperature": 1.0, "seed": 1, "n": 2, "logprobs": 1}
    whole = complete(client, [PROMPT, "Answer"], **settings)
    texts = [""] * 4
    reasons: dict[int, str] = {}
    usage = logprobs = None
    for chunk in complete(client, [PROMPT, "Answer"], stream=True, stream_options={"include_usage": True}, **settings):
        usage = chunk.usage
        for choice in chunk.choices:
            texts[choice.index] += choice.text
            if choice.finish_reason:
                reasons[choice.index] = choice.finish_reason
                logprobs = choice.logprobs if choice.index == 3 else logprobs
    assert texts == [choice.text for choice in whole.choices]
    assert [reasons[index] for index in range(4)] == [choice.finish_reason for choice in whole.choices]
    assert usage is not None
    assert usage.total_tokens == whole.usage.total_tokens
    assert logprobs is not None
    assert logprobs.tokens == whole.choices[3].logprobs.tokens
    # How much of a prompt is resident decides the order of sums, and so the last bits.
    assert logprobs.token_logprobs == pytest.approx(whole.choices[3].logprobs.token_logprobs, abs=1e-3)


def test_models(server: Served, client: openai.OpenAI) -> None:
    (model,) = client.models.list().data
    assert (model.id, model.object) == (NAME, "model")
    assert model.max_model_len == server.chat.n_ctx  # type: ignore[attr-defined]
    assert client.models.retrieve(NAME) == model
    with pytest.raises(openai.NotFoundError, match="served is 'tiny'"):
        client.models.retrieve("other")


def test_health(http: httpx.Client) -> None:
    assert http.get("/health").json() == {"status": "ok"}


def test_metrics_count(server: Served, client: openai.OpenAI, http: httpx.Client) -> None:
    names = ["prompt_tokens_total", "prompt_tokens_computed_total", "completion_tokens_total"]
    names.append('requests_total{result="done"}')
    before = {name: server.metric(name, http) for name in names}
    usage = [complete(client, "jumps over the lazy dog" * 5, max_tokens=5).usage for _ in range(2)]
    grown = {name: server.metric(name, http) - before[name] for name in names}
    assert grown['requests_total{result="done"}'] == 2
    assert grown["prompt_tokens_total"] == sum(one.prompt_tokens for one in usage)
    assert grown["completion_tokens_total"] == sum(one.completion_tokens for one in usage)
    assert 0 < grown["prompt_tokens_computed_total"] < grown["prompt_tokens_total"]
    assert server.metric("requests_running", http) == server.metric("requests_waiting", http) == 0
    answer = http.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    for line in answer.text.splitlines():
        assert line.startswith("# ") or math.isfinite(float(line.rpartition(" ")[2])), line


@pytest.fixture(scope="module")
def embedder(server: Served) -> Iterator[Served]:
    with serving(server.chat, embeddings=True) as served:
        yield served


def test_embeddings(embedder: Served) -> None:
    client = embedder.client()
    texts = ["Tokyo", "The quick brown fox", "Tokyo"]
    for form in ("float", "base64", None):
        asked: dict[str, Any] = {} if form is None else {"encoding_format": form}
        answer = client.embeddings.create(model=NAME, input=texts, **asked)
        assert [entry.index for entry in answer.data] == [0, 1, 2]
        vectors = [_vector(entry.embedding) for entry in answer.data]
        for found, expected in zip(vectors, embedder.chat.embed(texts), strict=True):
            assert found == pytest.approx(expected, abs=1e-6)
        assert vectors[0] == pytest.approx(vectors[2], abs=1e-5)
        assert vectors[0] != pytest.approx(vectors[1], abs=1e-2)
        assert math.hypot(*vectors[0]) == pytest.approx(1, abs=1e-4)
        assert answer.usage.prompt_tokens == answer.usage.total_tokens > 3
    one = client.embeddings.create(model=NAME, input="Tokyo", encoding_format="float").data
    assert one[0].embedding == pytest.approx(vectors[0], abs=1e-5)


def _vector(found: Any) -> list[float]:
    """The client hands base64 back as it came where it was asked for by name."""
    if isinstance(found, str):
        data = base64.b64decode(found)
        return list(struct.unpack(f"<{len(data) // 4}f", data))
    return list(found)


def test_texts_that_cannot_be_embedded(embedder: Served) -> None:
    client = embedder.client()
    with pytest.raises(openai.BadRequestError, match=r"input\[1\] cannot be embedded") as caught:
        client.embeddings.create(model=NAME, input=["Tokyo", "東" * 3000])
    assert caught.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError, match=r"input\[0\] cannot be embedded"):
        client.embeddings.create(model=NAME, input="")
    with pytest.raises(openai.BadRequestError, match="at least one text"):
        client.embeddings.create(model=NAME, input=[])
    with pytest.raises(openai.BadRequestError, match="'dimensions' is not supported"):
        client.embeddings.create(model=NAME, input="Tokyo", dimensions=8)


def test_embeddings_must_be_asked_for(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="--embeddings") as caught:
        client.embeddings.create(model=NAME, input="Tokyo")
    assert caught.value.code == "embeddings_not_served"
