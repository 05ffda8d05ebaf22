"""`LlamaCpp` as a whole: greedy parity, prefix reuse, threads, stop strings, seeds, contexts, DSPy."""

import asyncio
import copy
import pickle
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dspy
import pytest
from dspy.utils.exceptions import ContextWindowExceededError, LMConfigurationError, LMUnsupportedFeatureError

from promptopt.errors import ConfigError, ContextLengthError, LMError, PromptRefusedError
from promptopt.lm.llama_cpp.facade import LlamaCpp
from tests.fixtures_gguf import CORPUS, TEMPLATES, hf_tokenizer, tiny_tokenizer, write_tiny_gguf


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def prompts(count: int, *, seed: int = 0) -> list[list[dict[str, str]]]:
    """Prompts with three alternating beginnings, and ends of all lengths."""
    rng = random.Random(seed)
    words = " ".join(CORPUS).split()
    systems = [" ".join(rng.choices(words, k=30)) for _ in range(3)]
    return [
        [
            {"role": "system", "content": systems[number % 3]},
            {"role": "user", "content": " ".join(rng.choices(words, k=rng.randint(1, 25)))},
        ]
        for number in range(count)
    ]


@pytest.mark.parametrize("file_type", ["f32", "f16", "q8_0"])
def test_greedy_equals_plain_llama_and_reuse_changes_nothing(tmp_path: Path, file_type: str) -> None:
    import llama_cpp

    path = write_tiny_gguf(tmp_path / "m.gguf", file_type=file_type)
    warm = LlamaCpp(path, cache_dir=None, n_threads=1)
    cold = LlamaCpp(path, cache_dir=None, n_threads=1, prefix_reuse=False)
    plain = llama_cpp.Llama(str(path), n_ctx=512, n_threads=1, n_threads_batch=1, verbose=False)
    computed = total = 0
    for messages in prompts(30):
        ids = warm.tokenize_messages(messages)
        plain.reset()
        expected: list[int] = []
        for token in plain.generate(ids, temp=0.0):
            if token == plain.token_eos() or len(expected) == 16:
                break
            expected.append(token)
        assert warm.generate_tokens(ids, 16) == expected
        assert cold.generate_tokens(ids, 16) == expected
        answers = [lm.complete_messages(messages, max_tokens=16) for lm in (warm, cold)]
        assert answers[0].text == answers[1].text
        assert answers[1].prompt_tokens_computed == answers[1].prompt_tokens == len(ids)
        computed += answers[0].prompt_tokens_computed
        total += len(ids)
    assert computed < total / 3
    plain.close()
    warm.close()
    cold.close()


def logits_after(lm: LlamaCpp, ids: list[int]) -> list[float]:
    lm.generate_tokens(ids, 1)
    worker = lm.chat.engine._worker
    return list(lm.chat.engine.call(lambda: worker.batcher.seating.context.logits(1)[0].tolist()))


@pytest.mark.parametrize("file_type", ["f32", "f16", "q8_0"])
def test_reuse_gives_the_same_bits(tmp_path: Path, file_type: str) -> None:
    path = write_tiny_gguf(tmp_path / "m.gguf", file_type=file_type, n_ctx_train=2048)
    warm = LlamaCpp(path, cache_dir=None, n_threads=1)
    cold = LlamaCpp(path, cache_dir=None, n_threads=1, prefix_reuse=False)
    rng = random.Random(1)
    base = [rng.randrange(256) for _ in range(1100)]
    for length in (3, 15, 16, 17, 18, 30, 33, 515, 513, 512, 1030, 1024, 528, 300, 19, 4):
        ids = [*base[:length], *(rng.randrange(256) for _ in range(rng.randrange(4)))]
        assert logits_after(warm, ids) == logits_after(cold, ids), length
    warm.close()
    cold.close()


def test_alternating_prefixes_are_not_computed_again(lm: LlamaCpp) -> None:
    first, second = prompts(2, seed=5)
    for _ in range(2):
        lm.complete_messages(first, max_tokens=2)
        lm.complete_messages(second, max_tokens=2)
    for messages in (first, second, first):
        done = lm.complete_messages(messages, max_tokens=2)
        assert done.prompt_tokens_computed < 16 + 4


def test_many_threads_get_their_own_answers(lm: LlamaCpp) -> None:
    asked = prompts(80, seed=2)
    expected = [lm.complete_messages(messages, max_tokens=8).text for messages in asked]
    order = list(range(80)) * 2
    random.Random(0).shuffle(order)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n: lm.complete_messages(asked[n], max_tokens=8).text, order))
    assert answers == [expected[n] for n in order]


def test_stop_strings_cut_also_across_tokens(lm: LlamaCpp) -> None:
    for number, messages in enumerate(prompts(10, seed=3)):
        full = lm.complete_messages(messages, max_tokens=24)
        for start in range(0, len(full.text) - 3, 3):
            stop = full.text[start : start + 3]
            cut = lm.complete_messages(messages, max_tokens=24, stop=["never there", stop])
            assert cut.text == full.text[: full.text.index(stop)], number
            assert cut.finish_reason == "stop"
            assert cut.completion_tokens <= full.completion_tokens


def test_max_tokens_and_finish_reason(lm: LlamaCpp) -> None:
    lengths = {lm.complete_messages(m, max_tokens=3).finish_reason for m in prompts(10)}
    assert "length" in lengths
    for messages in prompts(10):
        done = lm.complete_messages(messages, max_tokens=3)
        assert done.completion_tokens == 3 if done.finish_reason == "length" else done.completion_tokens <= 3


def test_seeds(lm: LlamaCpp) -> None:
    messages = user("質問に答えて")
    texts = [
        lm.complete_messages(messages, temperature=1.0, seed=seed).text for seed in (1, 1, 2, 2**32 - 1, 2**32 - 1)
    ]
    assert texts[0] == texts[1] != texts[2]
    assert texts[3] == texts[4]
    assert lm.copy(seed=2).complete_messages(messages, temperature=1.0).text == texts[2]
    greedy = {lm.complete_messages(messages, temperature=0.0, seed=seed).text for seed in range(3)}
    assert len(greedy) == 1


def test_dspy_draws_differ_and_repeat(lm: LlamaCpp) -> None:
    five = lm("Question", n=5, temperature=1.0)
    assert len(set(five)) == 5
    assert lm("Question", n=5, temperature=1.0) == five
    fresh = lm("Question", rollout_id=1, temperature=1.0)
    assert fresh[0] not in five
    assert lm.copy(rollout_id=1)("Question", temperature=1.0) == fresh
    assert asyncio.run(lm.acall("Question", n=5, temperature=1.0)) == five


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_dspy_predict_in_threads(gguf_path: Path) -> None:
    class FirstWords(dspy.Adapter):
        def format(self, signature: type, demos: list[dict[str, str]], inputs: dict[str, str]) -> list[dict[str, str]]:
            return user(inputs["question"])

        def parse(self, signature: type, completion: str) -> dict[str, str]:
            return {"answer": completion}

    lm = LlamaCpp(gguf_path, cache_dir=None, n_threads=1, max_tokens=8)
    questions = [f"Question {n}: 東京 12 + {n}" for n in range(20)]
    expected = [lm.complete_messages(user(q)).text for q in questions]
    program = dspy.Predict("question -> answer")
    with dspy.context(lm=lm, adapter=FirstWords()):
        examples = [(program, dspy.Example(question=q).with_inputs("question")) for q in questions]
        found = [p.answer for p in dspy.Parallel(num_threads=4, disable_progress_bar=True)(examples)]
    assert found == expected
    usage = lm.history[-1]["usage"]
    assert usage["prompt_tokens"] > 0
    lm.close()


def test_dspy_sees_the_prompt_that_complete_messages_sees(lm: LlamaCpp) -> None:
    from dspy.lm15 import Config, Message, Request

    request = Request(
        model=lm.model,
        system="Answer the question.",
        messages=(Message.user("Question"), Message.assistant("Answer: To")),
        config=Config(max_tokens=5),
    )
    response = lm(request)
    direct = lm.complete_messages(
        [
            {"role": "system", "content": "Answer the question."},
            {"role": "user", "content": "Question"},
            {"role": "assistant", "content": "Answer: To"},
        ],
        max_tokens=5,
    )
    assert response.text == direct.text
    assert response.usage.input_tokens == direct.prompt_tokens
    assert response.provider_data["latency_s"] > 0
    computed = response.usage.input_tokens - response.usage.cache_read_tokens
    assert computed == response.provider_data["prompt_tokens_computed"]


def test_prefill_is_continued(lm: LlamaCpp) -> None:
    messages = user("Question")
    opened = lm.tokenize_messages([*messages, {"role": "assistant", "content": "Answer: Tokyo"}])
    assert opened == lm.tokenize_messages(messages) + lm.tokenize_text("Answer: Tokyo", special=True)


def test_tokens_equal_transformers(lm: LlamaCpp) -> None:
    hf = hf_tokenizer(lm.chat.template.source)
    for messages in [*prompts(20), user("日本語の<|im_end|>文章 \n\n 12+3"), user("")]:
        expected = hf.apply_chat_template(messages, add_generation_prompt=True, tokenize=True)["input_ids"]
        assert lm.tokenize_messages(messages) == expected
        assert lm.count_tokens(messages) == len(expected)
    assert lm.tokenize_text("<|im_end|>", special=True) == [tiny_tokenizer().token_to_id("<|im_end|>")]
    assert len(lm.tokenize_text("<|im_end|>", special=False)) > 1


def test_context_errors_come_before_anything_runs(gguf_path: Path) -> None:
    lm = LlamaCpp(gguf_path, cache_dir=None, n_ctx=64, n_threads=1)
    assert lm.n_ctx == 64
    base = lm.count_tokens(user(""))
    text = "東" * 400
    while lm.count_tokens(user(text)) > 63:
        text = text[:-1]
    fits = lm.count_tokens(user(text))
    assert base < fits <= 63
    done = lm.complete_messages(user(text), max_tokens=500)
    assert done.finish_reason == "stop" or done.completion_tokens == 64 - fits
    with pytest.raises(ContextLengthError, match=r"tokens and the context of tiny.gguf holds 64"):
        lm.complete_messages(user("東" * 400))
    with pytest.raises(ContextWindowExceededError, match="holds 64"):
        lm("東" * 400)
    with pytest.raises(ContextLengthError):
        lm.generate_tokens([1] * 64, 1)
    lm.close()
    assert LlamaCpp(gguf_path, cache_dir=None, n_ctx=10**6).n_ctx == 512
    assert LlamaCpp(gguf_path, cache_dir=None, n_ctx=0).n_ctx == 512


def test_bad_requests(lm: LlamaCpp) -> None:
    from dspy.lm15 import Message, Request

    with pytest.raises(ConfigError, match="max_tokens is 0"):
        lm.complete_messages(user("a"), max_tokens=0)
    with pytest.raises(ConfigError, match="temperature is -1"):
        lm.complete_messages(user("a"), temperature=-1)
    with pytest.raises(ConfigError, match="stop is"):
        lm.complete_messages(user("a"), stop=[""])
    with pytest.raises(ConfigError, match="no messages"):
        lm.complete_messages([])
    with pytest.raises(ConfigError, match="role 'tool'"):
        lm.complete_messages([{"role": "tool", "content": "x"}])
    tool = {"type": "function", "function": {"name": "search", "parameters": {"type": "object", "properties": {}}}}
    with pytest.raises(LMUnsupportedFeatureError, match="does not support tools"):
        lm("a", tools=[tool])
    with pytest.raises(LMConfigurationError):
        lm(Request(model=lm.model, messages=(Message.assistant("only a prefill"),)))


def test_a_refused_prompt_keeps_its_error_on_the_way_through_dspy(tmp_path: Path) -> None:
    from dspy.lm15 import Message, Request

    path = write_tiny_gguf(tmp_path / "gemma.gguf", template=TEMPLATES["gemma"])
    lm = LlamaCpp(path, cache_dir=None, n_threads=1, max_tokens=2)
    messages = [{"role": "system", "content": "Be brief."}, *user("a")]
    with pytest.raises(PromptRefusedError, match="system_role: merged"):
        lm.complete_messages(messages)
    with pytest.raises(LMConfigurationError, match="system_role: merged") as caught:
        lm(Request(model=lm.model, system="Be brief.", messages=(Message.user("a"),)))
    chain: list[BaseException | None] = [caught.value]
    while chain[-1] is not None:
        chain.append(chain[-1].__cause__)
    assert any(isinstance(error, PromptRefusedError) for error in chain)
    lm.close()


def test_copies_share_the_model_and_survive_close_together(gguf_path: Path) -> None:
    lm = LlamaCpp(gguf_path, cache_dir=None, n_threads=1, max_tokens=4)
    program = dspy.Predict("question -> answer")
    program.set_lm(lm)
    copies = [lm.copy(temperature=0.5), copy.deepcopy(lm), program.deepcopy().lm, copy.copy(lm)]
    assert all(other.chat is lm.chat and other.engine is lm.engine for other in copies)
    assert copies[0].kwargs["temperature"] == 0.5
    assert lm.kwargs["temperature"] == 0.0
    lm.close()
    lm.close()
    with pytest.raises(LMError, match="was closed"):
        copies[1].complete_messages(user("a"))


def test_state_round_trips(gguf_path: Path) -> None:
    lm = LlamaCpp(gguf_path, cache_dir=None, n_threads=1, max_tokens=4, top_k=5, top_p=0.9, temperature=0.7, seed=3)
    expected = lm.complete_messages(user("Question")).text
    for other in (pickle.loads(pickle.dumps(lm)), LlamaCpp.load_state(lm.dump_state())):
        assert other.chat is not lm.chat
        assert other.complete_messages(user("Question")).text == expected
        assert other.kwargs == lm.kwargs
    other = dspy.BaseLM.load_state(lm.dump_state(), allow_custom_lm_class=True)
    assert isinstance(other, LlamaCpp)


def test_close_ends_waiting_requests(gguf_path: Path) -> None:
    lm = LlamaCpp(gguf_path, cache_dir=None, n_threads=1)
    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(lm.complete_messages, m, max_tokens=400, temperature=1.0) for m in prompts(40)]
        lm.close()
        for future in futures:
            try:
                future.result(timeout=30)
            except LMError as error:
                assert "closed" in str(error)
