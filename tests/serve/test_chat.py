"""/v1/chat/completions with OpenAI's own client."""

import json
from typing import Any

import openai
import pytest

from promptopt.lm.llama_cpp.local_chat import ChatRequest
from promptopt.lm.llama_cpp.sampling import Sampling
from promptopt.serve.wanted import draw_seed
from tests.serve.live_server import NAME, Served

USER: list[Any] = [{"role": "user", "content": "Question: what is the capital of Japan?"}]
CHAT: list[Any] = [
    {"role": "system", "content": "Answer the question with one word."},
    *USER,
    {"role": "assistant", "content": "東京"},
    {"role": "user", "content": "日本語の文章。 12 + 30 ="},
]
SCHEMA = {
    "type": "object",
    "properties": {"ok": {"type": "boolean"}, "animal": {"type": "string", "enum": ["fox", "dog"]}},
    "required": ["ok", "animal"],
    "additionalProperties": False,
}


def ask(client: openai.OpenAI, messages: list[Any] = CHAT, **settings: Any) -> Any:
    return client.chat.completions.create(model=NAME, messages=messages, **{"max_tokens": 24, **settings})


def direct(server: Served, messages: list[Any] = CHAT, max_tokens: int = 24, **settings: Any) -> Any:
    sampling = Sampling(**settings.pop("sampling", {}))
    return server.chat.complete(ChatRequest(messages, max_tokens, sampling, **settings))


def test_an_answer_is_the_models_own(server: Served, client: openai.OpenAI) -> None:
    answer = ask(client)
    expected = direct(server)
    assert answer.object == "chat.completion"
    assert answer.id.startswith("chatcmpl-")
    assert answer.model == NAME
    (choice,) = answer.choices
    assert (choice.message.role, choice.message.content) == ("assistant", expected.text)
    assert choice.finish_reason == expected.finish_reason
    assert choice.logprobs is None
    assert answer.usage.prompt_tokens == len(server.chat.tokenize_messages(CHAT))
    assert answer.usage.completion_tokens == expected.completion_tokens
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_usage_shows_what_was_resident(client: openai.OpenAI) -> None:
    ask(client)
    usage = ask(client).usage
    # The tokens that are computed anew are at most a few, so that the batch has a last row.
    assert usage.prompt_tokens - 20 <= usage.prompt_tokens_details.cached_tokens < usage.prompt_tokens
    fresh: list[Any] = [{"role": "user", "content": "9 8 7 jumps over the lazy dog 6 5 4 brown fox" * 3}]
    assert ask(client, fresh).usage.prompt_tokens_details.cached_tokens < 20


@pytest.mark.parametrize(
    ("body", "sampling"),
    [
        ({"temperature": 1.0, "seed": 3}, {"temperature": 1.0, "seed": 3}),
        ({"temperature": 1.5, "seed": 3, "top_p": 0.5}, {"temperature": 1.5, "seed": 3, "top_p": 0.5}),
        (
            {"temperature": 2, "seed": 1, "extra_body": {"top_k": 3, "min_p": 0.1}},
            {"temperature": 2.0, "seed": 1, "top_k": 3, "min_p": 0.1},
        ),
        ({"extra_body": {"repetition_penalty": 0.2}}, {"repetition_penalty": 0.2}),
        (
            {"frequency_penalty": -2.0, "presence_penalty": -1.5},
            {"frequency_penalty": -2.0, "presence_penalty": -1.5},
        ),
        ({"temperature": 0, "user": "me", "store": False, "metadata": {"a": "b"}, "service_tier": "auto"}, {}),
        ({"tools": [], "tool_choice": "none", "logit_bias": {}, "modalities": ["text"]}, {}),
    ],
)
def test_settings_reach_the_model(
    server: Served, client: openai.OpenAI, body: dict[str, Any], sampling: dict[str, Any]
) -> None:
    expected = direct(server, sampling=sampling).text
    assert ask(client, **body).choices[0].message.content == expected
    greedy = direct(server).text
    assert (expected == greedy) == (not sampling)


def test_stop_strings(server: Served, client: openai.OpenAI) -> None:
    full = direct(server).text
    stop = full[5:7]
    for given in (stop, ["never there", stop]):
        choice = ask(client, stop=given).choices[0]
        assert choice.message.content == full[: full.index(stop)]
        assert choice.finish_reason == "stop"


def test_length(server: Served, client: openai.OpenAI) -> None:
    for name in ("max_tokens", "max_completion_tokens"):
        answer = client.chat.completions.create(
            model=NAME, messages=CHAT, extra_body={name: 3, "grammar": "root ::= [a-z]+ root"}
        )
        assert answer.usage.completion_tokens == 3
        assert answer.choices[0].finish_reason == "length"
    answer = client.chat.completions.create(model=NAME, messages=CHAT, extra_body={"grammar": 'root ::= "a" root'})
    assert answer.usage.total_tokens == server.chat.n_ctx


def test_messages_may_be_written_in_several_ways(server: Served, client: openai.OpenAI) -> None:
    parts: list[Any] = [
        {
            "role": "developer",
            "content": [{"type": "text", "text": "Answer the "}, {"type": "text", "text": "question with one word."}],
        },
        CHAT[1],
        {"role": "assistant", "content": "東京", "refusal": None, "tool_calls": None, "annotations": []},
        CHAT[3],
    ]
    answer = ask(client, parts)
    assert answer.choices[0].message.content == direct(server).text
    prefill: list[Any] = [*USER, {"role": "assistant", "content": "Answer: To"}]
    assert ask(client, prefill).choices[0].message.content == direct(server, prefill).text


def test_draws_differ_and_repeat(server: Served, client: openai.OpenAI) -> None:
    texts = [choice.message.content for choice in ask(client, n=5, temperature=1.0, seed=7).choices]
    assert len(set(texts)) == 5
    assert [c.message.content for c in ask(client, n=5, temperature=1.0, seed=7).choices] == texts
    assert texts[0] == ask(client, temperature=1.0, seed=7).choices[0].message.content
    expected = [direct(server, sampling={"temperature": 1.0, "seed": draw_seed(7, n)}).text for n in range(5)]
    assert texts == expected
    answer = ask(client, n=5, temperature=1.0, seed=7)
    assert [choice.index for choice in answer.choices] == list(range(5))
    assert answer.usage.prompt_tokens == len(server.chat.tokenize_messages(CHAT))


def test_without_a_seed_every_draw_is_fresh(client: openai.OpenAI) -> None:
    texts = {ask(client, temperature=1.0).choices[0].message.content for _ in range(4)}
    assert len(texts) == 4


def test_logprobs(server: Served, client: openai.OpenAI) -> None:
    choice = ask(client, logprobs=True, top_logprobs=3).choices[0]
    expected = direct(server, logprobs=3).logprobs
    assert [entry.token for entry in choice.logprobs.content] == [entry.text for entry in expected]
    joined = b"".join(bytes(entry.bytes) for entry in choice.logprobs.content).decode("utf-8", "replace")
    assert joined.startswith(choice.message.content)
    for entry in choice.logprobs.content:
        assert len(entry.top_logprobs) == 3
        assert entry.logprob == entry.top_logprobs[0].logprob <= 0
        assert entry.token == entry.top_logprobs[0].token
    bare = ask(client, logprobs=True).choices[0]
    assert [entry.top_logprobs for entry in bare.logprobs.content] == [[]] * len(expected)


@pytest.mark.parametrize("seed", range(5))
def test_a_json_schema_is_kept(client: openai.OpenAI, seed: int) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "it", "strict": True, "schema": SCHEMA}}
    answer = ask(client, response_format=form, temperature=2.0, seed=seed, max_tokens=400)
    found = json.loads(answer.choices[0].message.content)
    assert set(found) == {"ok", "animal"}
    assert isinstance(found["ok"], bool)
    assert found["animal"] in ("fox", "dog")


def test_a_json_object_begins_as_one(client: openai.OpenAI) -> None:
    text = ask(client, response_format={"type": "json_object"}, temperature=1.0, seed=0).choices[0].message.content
    assert text.startswith("{")
    assert (
        ask(client, response_format={"type": "text"}).choices[0].message.content
        == ask(client).choices[0].message.content
    )


def test_a_grammar_is_kept(client: openai.OpenAI) -> None:
    texts = {
        ask(client, temperature=3.0, seed=seed, extra_body={"grammar": 'root ::= "yes" | "no"'})
        .choices[0]
        .message.content
        for seed in range(12)
    }
    assert texts == {"yes", "no"}


def read(stream: Any) -> tuple[dict[int, str], dict[int, str], list[Any]]:
    """Return texts and finish reasons per choice, and all chunks."""
    texts: dict[int, str] = {}
    reasons: dict[int, str] = {}
    chunks = list(stream)
    for chunk in chunks:
        for choice in chunk.choices:
            assert choice.index not in reasons
            texts[choice.index] = texts.get(choice.index, "") + (choice.delta.content or "")
            if choice.finish_reason:
                reasons[choice.index] = choice.finish_reason
    return texts, reasons, chunks


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"max_tokens": 200, "temperature": 1.0, "seed": 5},
        {"stop": ["e", "の"], "temperature": 1.0, "seed": 2, "max_tokens": 100},
        {"n": 3, "temperature": 1.0, "seed": 4},
        {"max_tokens": 1},
    ],
)
def test_a_stream_says_the_same(client: openai.OpenAI, settings: dict[str, Any]) -> None:
    whole = ask(client, **settings)
    texts, reasons, chunks = read(ask(client, **settings, stream=True))
    assert texts == {choice.index: choice.message.content for choice in whole.choices}
    assert reasons == {choice.index: choice.finish_reason for choice in whole.choices}
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk.id for chunk in chunks}) == 1
    assert chunks[0].choices[0].delta.role == "assistant"
    assert all(chunk.usage is None for chunk in chunks)


def test_a_stream_comes_in_pieces(client: openai.OpenAI) -> None:
    _, _, chunks = read(ask(client, stream=True, max_tokens=50, extra_body={"grammar": 'root ::= "a" root'}))
    pieces = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices[0].delta.content]
    assert len(pieces) > 10


def test_a_stream_ends_with_usage_where_asked(client: openai.OpenAI) -> None:
    whole = ask(client, n=2)
    _, _, chunks = read(ask(client, n=2, stream=True, stream_options={"include_usage": True}))
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert chunks[-1].usage.prompt_tokens == whole.usage.prompt_tokens
    assert all(chunk.usage is None for chunk in chunks[:-1])


def test_a_stream_ends_with_its_logprobs(client: openai.OpenAI) -> None:
    whole = ask(client, logprobs=True, top_logprobs=2).choices[0].logprobs
    _, _, chunks = read(ask(client, logprobs=True, top_logprobs=2, stream=True))
    found = chunks[-1].choices[0].logprobs.content
    assert [entry.token for entry in found] == [entry.token for entry in whole.content]
    assert [entry.logprob for entry in found] == pytest.approx([entry.logprob for entry in whole.content], abs=1e-3)
    assert all(len(entry.top_logprobs) == 2 for entry in found)
