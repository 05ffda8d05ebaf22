"""The engine under load: random arrivals, cancellations, shared beginnings and evictions against a slow reference."""

import asyncio
import math
import random
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import llama_cpp
import numpy as np
import pytest

from promptopt.errors import BusyError, ConfigError, ContextLengthError, LMError, ModelError, RequestTimeoutError
from promptopt.lm.llama_cpp.facade import LlamaCpp
from promptopt.lm.llama_cpp.local_chat import ChatRequest
from promptopt.lm.llama_cpp.lora import LoraWeights
from promptopt.lm.llama_cpp.requests import Generated, GenerationRequest
from promptopt.lm.llama_cpp.sampling import Sampling
from tests.fixtures_gguf import write_tiny_gguf, write_tiny_lora

LONG = "root ::= [a-z]{400}"
"""A grammar that keeps a random model writing."""


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def slow_greedy(plain: llama_cpp.Llama, prompt: list[int], count: int, ends: set[int]) -> list[int]:
    """The reference: one prompt after the other, each from its start."""
    plain.reset()
    tokens: list[int] = []
    for token in plain.generate(prompt, temp=0.0):
        if token in ends or len(tokens) == count:
            break
        tokens.append(token)
    return tokens


@pytest.mark.parametrize("seed", range(4))
def test_random_traffic_equals_the_slow_reference(tmp_path: Path, seed: int) -> None:
    path = write_tiny_gguf(tmp_path / "m.gguf", file_type="f32", n_ctx_train=1024, seed=seed)
    plain = llama_cpp.Llama(str(path), n_ctx=1024, n_threads=1, n_threads_batch=1, verbose=False)
    lm = LlamaCpp(path, cache_dir=None, n_threads=1, parallel=5)
    rng = random.Random(seed)
    heads = [[rng.randrange(256) for _ in range(rng.choice([0, 30, 90, 300]))] for _ in range(5)]
    ends = {t for t in range(420) if lm.chat.model.vocabulary.ends_generation(t)}
    asked, futures = [], []
    for _ in range(60):
        prompt = rng.choice(heads) + [rng.randrange(256) for _ in range(rng.randint(1, 70))]
        count = rng.randint(1, 12)
        asked.append((prompt, count))
        futures.append(lm.chat.engine.submit(GenerationRequest(prompt, count, Sampling())))
        if rng.random() < 0.2:
            rng.choice(futures).cancel()
        if rng.random() < 0.1:
            time.sleep(rng.random() * 0.01)
    same = answered = 0
    for (prompt, count), future in zip(asked, futures, strict=True):
        if future.cancelled():
            continue
        answered += 1
        same += list(future.result(60).tokens) == slow_greedy(plain, prompt, count, ends)
    assert answered > 30
    # Rows of a batch may be summed in another order than a row alone: nearly tied tokens of a random model can differ.
    assert same >= answered - 1
    stats = lm.chat.stats()
    assert (stats.requests_running, stats.requests_waiting) == (0, 0)
    assert stats.prompt_tokens_computed < stats.prompt_tokens
    plain.close()
    lm.close()


@pytest.mark.parametrize("file_type", ["f32", "f16", "q8_0"])
def test_batch_invariant_answers_do_not_depend_on_company(tmp_path: Path, file_type: str) -> None:
    path = write_tiny_gguf(tmp_path / "m.gguf", file_type=file_type, n_ctx_train=1024)
    lm = LlamaCpp(path, cache_dir=None, n_threads=1, parallel=12, batch_invariant=True)
    rng = random.Random(0)
    head = [rng.randrange(256) for _ in range(100)]
    prompts = [head[: rng.choice([0, 50, 100])] + [rng.randrange(256) for _ in range(20)] for _ in range(24)]

    def ask(prompt: list[int]) -> "Future[Generated]":
        request = GenerationRequest(prompt, 12, Sampling(temperature=0.7, seed=len(prompt)), logprobs=0)
        return lm.chat.engine.submit(request)

    alone = [ask(prompt).result() for prompt in prompts]
    together = [future.result() for future in [ask(prompt) for prompt in prompts]]
    for one, other in zip(alone, together, strict=True):
        assert one.tokens == other.tokens
        # Equal to the last bit, not only to the chosen token.
        assert [entry.logprob for entry in one.logprobs or ()] == [entry.logprob for entry in other.logprobs or ()]
    assert lm.chat.engine.batch_rule != "free"
    lm.close()


def test_flash_attention_is_a_choice_and_excludes_batch_invariance(gguf_path: Path) -> None:
    plain = LlamaCpp(gguf_path, cache_dir=None, n_threads=1)
    flash = LlamaCpp(gguf_path, cache_dir=None, n_threads=1, flash_attention=True)
    assert not plain.chat.model.flash_attention
    assert flash.chat.model.flash_attention
    request = ChatRequest(user("Flash " * 60), 1, Sampling(), logprobs=5)
    one, other = (lm.chat.complete(request).logprobs or () for lm in (plain, flash))
    assert one[0].logprob == pytest.approx(other[0].logprob, abs=0.01)
    plain.close()
    flash.close()
    with pytest.raises(ConfigError, match="Choose one"):
        LlamaCpp(gguf_path, batch_invariant=True, flash_attention=True)


def test_a_common_beginning_is_computed_once(lm: LlamaCpp) -> None:
    rng = random.Random(1)
    head = [rng.randrange(256) for _ in range(200)]
    prompts = [head + [rng.randrange(256) for _ in range(20)] for _ in range(12)]
    before = lm.chat.stats()
    lm.chat.generate_many(prompts, 4)
    after = lm.chat.stats()
    computed = after.prompt_tokens_computed - before.prompt_tokens_computed
    # 19 more per request at most: bits are only kept at multiples of four, in batches of at least sixteen.
    assert 200 + 12 * 20 <= computed <= 200 + 12 * (20 + 3)


def test_many_answers_from_one_prompt_pass(lm: LlamaCpp) -> None:
    text = "Question " * 100
    before = lm.chat.stats()
    five = lm(text, n=5, temperature=1.0)
    after = lm.chat.stats()
    assert len(set(five)) == 5
    prompt = lm.count_tokens(user(text))
    assert after.prompt_tokens - before.prompt_tokens == 5 * prompt
    assert after.prompt_tokens_computed - before.prompt_tokens_computed <= prompt + 4 * 19
    # Together: fewer decode calls than one after the other would take.
    assert after.decode_calls - before.decode_calls < 5 * lm.kwargs["max_tokens"] / 2


def test_complete_many_keeps_the_order_of_its_requests(lm: LlamaCpp) -> None:
    texts = [f"{number % 3} question {number}" for number in range(20)]
    found = lm.complete_many([user(text) for text in texts], max_tokens=6)
    assert [done.text for done in found] == [lm.complete_messages(user(text), max_tokens=6).text for text in texts]
    with pytest.raises(ContextLengthError):
        lm.complete_many([user("fits"), user("東" * 2000)])


def test_draws_depend_on_the_seed_and_on_nothing_else(lm: LlamaCpp) -> None:
    alone = [lm.complete_messages(user("Draw"), temperature=1.0, seed=seed).text for seed in range(8)]
    with ThreadPoolExecutor(8) as pool:
        together = list(
            pool.map(lambda seed: lm.complete_messages(user("Draw"), temperature=1.0, seed=seed).text, range(8))
        )
    assert together == alone
    assert len(set(alone)) > 4


def test_cancelled_and_timed_out_requests_free_their_place(gguf_path: Path) -> None:
    lm = LlamaCpp(gguf_path, cache_dir=None, n_threads=1, parallel=2, max_tokens=400)
    running = [lm.chat.submit(ChatRequest(user(f"long {n}"), 400, Sampling(), grammar=LONG)) for n in range(2)]
    waiting = lm.chat.submit(ChatRequest(user("waits"), 1, Sampling()))
    waiting.cancel()
    with pytest.raises(LMError, match="given up"):
        waiting.result()
    with pytest.raises(RequestTimeoutError, match=r"No answer within 0\.001 s"):
        running[0].result(0.001)
    running[1].cancel()
    assert lm.complete_messages(user("next"), max_tokens=2, timeout_s=30).completion_tokens <= 2
    stats = lm.chat.stats()
    assert stats.requests_running == 0
    with pytest.raises(TimeoutError):
        lm.complete_messages(user("also a TimeoutError"), max_tokens=400, grammar=LONG, timeout_s=0.001)
    lm.close()


def test_an_abandoned_request_is_given_up(gguf_path: Path) -> None:
    lm = LlamaCpp(gguf_path, cache_dir=None, n_threads=1, parallel=1)
    lm.chat.submit(ChatRequest(user("nobody waits"), 400, Sampling(), grammar=LONG))
    assert lm.complete_messages(user("next"), max_tokens=1, timeout_s=30).completion_tokens <= 1
    stats = lm.chat.stats()
    assert (stats.requests_running, stats.requests_waiting) == (0, 0)
    assert stats.completion_tokens < 300
    kept = lm.chat.submit(ChatRequest(user("a future keeps it"), 3, Sampling())).future
    assert kept.result(30).completion_tokens <= 3
    lm.close()


def test_back_pressure(gguf_path: Path) -> None:
    lm = LlamaCpp(gguf_path, cache_dir=None, n_threads=1, parallel=1, max_waiting=3, max_tokens=300)
    request = ChatRequest(user("long"), 300, Sampling(), grammar=LONG)
    pending = []
    with pytest.raises(BusyError, match="3 requests are waiting"):
        for _ in range(6):
            pending.append(lm.chat.submit(request, wait=False))
    assert len(pending) in (3, 4)
    # Waiting outside works, and everybody is served.
    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(lambda n: lm.complete_messages(user(f"{n}"), max_tokens=1), range(8)))
    assert len(done) == 8
    lm.close()


def test_streams_give_the_text_and_can_be_left(lm: LlamaCpp) -> None:
    messages = user("Stream 東京 please")
    whole = lm.complete_messages(messages, max_tokens=24)
    pending = lm.chat.submit(lm.chat_request(messages, max_tokens=24), stream=True)
    pieces = list(pending.stream())
    assert "".join(pieces) == whole.text == pending.result().text
    assert len(pieces) > 3
    stop = whole.text[3:6]
    pending = lm.chat.submit(lm.chat_request(messages, max_tokens=24, stop=[stop]), stream=True)
    assert "".join(pending.stream()) == whole.text[: whole.text.index(stop)]
    left = lm.chat.submit(lm.chat_request(messages, max_tokens=400, grammar=LONG), stream=True)
    iterator = left.stream()
    next(iterator)
    iterator.close()
    with pytest.raises(LMError, match="given up"):
        left.result()


def test_dspy_streams_field_by_field(lm: LlamaCpp) -> None:
    import dspy

    program = dspy.streamify(dspy.Predict("question -> answer"), async_streaming=True)

    async def run() -> list[object]:
        with dspy.context(lm=lm, adapter=dspy.ChatAdapter(use_json_adapter_fallback=False)):
            found = []
            try:
                async for chunk in program(question="Which city?"):
                    found.append(chunk)
            except BaseException as error:  # a random model does not write what ChatAdapter reads
                found.append(error)
            return found

    found = asyncio.run(run())
    assert any("Stream" in type(chunk).__name__ or "Chunk" in type(chunk).__name__ for chunk in found), found


def test_acall_serves_many_coroutines_without_a_thread_each(lm: LlamaCpp) -> None:
    async def run() -> list[list[str]]:
        return await asyncio.gather(*(lm.acall(f"Question {n}", max_tokens=4) for n in range(100)))

    before = threading.active_count()
    found = asyncio.run(run())
    assert [texts[0] for texts in found] == [lm(f"Question {n}", max_tokens=4)[0] for n in range(100)]
    assert threading.active_count() <= before + 1

    async def cancelled() -> None:
        for pause in (0.0, 0.001, 0.02):
            task = asyncio.create_task(lm.acall("Long", max_tokens=400, grammar=LONG))
            await asyncio.sleep(pause)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(cancelled())
    assert lm.complete_messages(user("after"), max_tokens=1, timeout_s=30)


def test_logprobs_are_those_of_the_softmax(lm: LlamaCpp) -> None:
    request = ChatRequest(user("Log"), 5, Sampling(), logprobs=3)
    done = lm.chat.complete(request)
    assert done.logprobs is not None
    assert len(done.logprobs) == done.completion_tokens
    for entry in done.logprobs:
        assert entry.top[0].token == entry.token, "greedy takes the likeliest"
        assert entry.logprob == entry.top[0].logprob >= entry.top[1].logprob >= entry.top[2].logprob
    assert b"".join(entry.data for entry in done.logprobs).decode("utf-8", "replace") == done.text
    prompt = lm.tokenize_messages(user("Log"))
    plain = llama_cpp.Llama(str(lm.chat.path), n_ctx=512, n_threads=1, logits_all=True, verbose=False)
    plain.eval(prompt)
    logits = np.asarray(plain.scores[len(prompt) - 1], dtype=np.float64)
    expected = logits - math.log(np.exp(logits - logits.max()).sum()) - logits.max()
    assert done.logprobs[0].logprob == pytest.approx(expected[done.logprobs[0].token], abs=1e-4)
    plain.close()
    response = lm("Log", logprobs=True, top_logprobs=2, max_tokens=3)
    assert len(response[0]["logprobs"]["content"]) == 3


def test_penalties_and_filters_change_draws(lm: LlamaCpp) -> None:
    free = lm.chat.complete(ChatRequest(user("Repeat"), 40, Sampling()))
    penalised = lm.chat.complete(ChatRequest(user("Repeat"), 40, Sampling(repetition_penalty=1.9, presence_penalty=2)))
    assert free.text != penalised.text
    one = [
        lm.chat.complete(ChatRequest(user("Top"), 8, Sampling(temperature=3.0, top_k=1, seed=s))).text for s in (1, 2)
    ]
    assert one[0] == one[1] == lm.chat.complete(ChatRequest(user("Top"), 8, Sampling())).text
    assert lm("Top", max_tokens=8, temperature=2.0, min_p=1.0)[0] == one[0]
    with pytest.raises(ConfigError, match="repetition_penalty is 0"):
        Sampling(repetition_penalty=0)


def test_a_grammar_is_followed_by_each_request_of_its_own(lm: LlamaCpp) -> None:
    grammars = ['root ::= "yes" | "no"', "root ::= [0-9] [0-9] [0-9]", None]
    requests = [
        ChatRequest(user(f"Say {n}"), 12, Sampling(temperature=2.0, seed=n), grammar=grammars[n % 3]) for n in range(30)
    ]
    for number, done in enumerate(lm.chat.complete_many(requests)):
        if number % 3 == 0:
            assert done.text in ("yes", "no")
            assert done.finish_reason == "stop"
        if number % 3 == 1:
            assert len(done.text) == 3 and done.text.isdecimal()
    with pytest.raises(ConfigError, match="cannot compile the grammar"):
        lm.complete_messages(user("a"), grammar="root = nonsense (")
    with pytest.raises(ConfigError, match="NUL"):
        lm.complete_messages(user("a"), grammar='root ::= "a\0"')
    assert lm("Say", grammar=grammars[0])[0] in ("yes", "no")
    # The text of a control token may be written, but not by the token itself.
    marked = lm.chat.complete(ChatRequest(user("Mark"), 30, Sampling(), grammar='root ::= "<|im_start|>"'))
    assert marked.text == "<|im_start|>"
    answer = lm("Give JSON", response_format={"type": "json_object"}, max_tokens=200)[0]
    assert answer.startswith("{")
    assert lm.complete_messages(user("still alive"), max_tokens=2)


def test_lora_weights_are_never_mixed(tmp_path: Path) -> None:
    path = write_tiny_gguf(tmp_path / "m.gguf", file_type="f32", n_ctx_train=1024)
    one = write_tiny_lora(tmp_path / "one.gguf", seed=1)
    two = write_tiny_lora(tmp_path / "two.gguf", seed=2)
    base = LlamaCpp(path, cache_dir=None, n_threads=1, parallel=4, max_tokens=8)
    variants = [
        base,
        base.with_lora(one),
        base.with_lora([LoraWeights(one, 0.5), LoraWeights(two)]),
        base.with_lora(two),
    ]
    assert len({lm.fingerprint for lm in variants}) == 4
    prompts = [user("The same beginning " * 10 + str(n)) for n in range(6)]

    def fresh(lora: object, messages: list[dict[str, str]]) -> str:
        alone = LlamaCpp(path, cache_dir=None, n_threads=1, parallel=1, max_tokens=8, lora=lora, prefix_reuse=False)  # type: ignore[arg-type]
        text = alone.complete_messages(messages).text
        alone.close()
        return text

    expected = [[fresh(lm.lora, messages) for messages in prompts[:2]] for lm in variants]
    assert len({texts[0] for texts in expected}) == 4
    jobs = [(v, p) for p in range(6) for v in range(4)]
    random.Random(0).shuffle(jobs)
    with ThreadPoolExecutor(12) as pool:
        found = list(pool.map(lambda job: variants[job[0]].complete_messages(prompts[job[1]]).text, jobs))
    for (variant, prompt), text in zip(jobs, found, strict=True):
        if prompt < 2:
            assert text == expected[variant][prompt]
    assert base.with_lora([LoraWeights(one, 0.0)]).complete_messages(prompts[0]).text == expected[0][0]
    base.chat.free_lora(variants[1].lora)
    assert variants[1].complete_messages(prompts[0]).text == expected[1][0], "loaded again when asked for"
    with pytest.raises(ModelError, match="no LoRA weights at"):
        base.with_lora(tmp_path / "missing.gguf")
    with pytest.raises(ModelError, match="cannot use"):
        base.with_lora(path).complete_messages(prompts[0])
    assert base.complete_messages(prompts[0]).text == expected[0][0]
    again = LlamaCpp.load_state(variants[2].dump_state())
    assert again.complete_messages(prompts[1]).text == expected[2][1]
    again.close()
    base.close()


def test_the_context_grows_with_what_is_asked(tmp_path: Path) -> None:
    path = write_tiny_gguf(tmp_path / "m.gguf", n_ctx_train=4096)
    lm = LlamaCpp(path, cache_dir=None, n_threads=1, parallel=3, n_ctx=4096)
    rng = random.Random(0)
    short, long = ([rng.randrange(256) for _ in range(length)] for length in (50, 1500))
    first = lm.chat.generate_tokens(short, 5)
    size = lm.chat.engine._worker.batcher.seating.context.lane_tokens
    assert size == 512, "memory is taken when it is needed"
    both = lm.chat.generate_many([short, long, short, short, long], 5)
    assert both[0] == both[2] == first
    assert both[1] == both[4]
    assert lm.chat.engine._worker.batcher.seating.context.lane_tokens == 2048
    lm.close()


def test_embeddings(lm: LlamaCpp) -> None:
    texts = ["Tokyo is the capital of Japan.", "東京", "Tokyo is the capital of Japan."]
    vectors = np.asarray(lm.embed(texts))
    assert vectors.shape == (3, 64)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert np.array_equal(vectors[0], vectors[2])
    assert vectors[0] @ vectors[1] < 0.999
    with pytest.raises(ContextLengthError, match="Text 1 has"):
        lm.embed(["word " * 2000])
    with pytest.raises(ConfigError, match="no tokens"):
        lm.embed([""])
    assert lm.complete_messages(user("and it still answers"), max_tokens=2)
