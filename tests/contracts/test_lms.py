"""What every `ChatLM` promises, run against each of them."""

import copy
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dspy
import pytest

from promptopt.errors import ContextLengthError
from promptopt.lm.dspy_chat import DspyChatLM, as_chat_lm
from promptopt.lm.llama_cpp.facade import LlamaCpp
from promptopt.lm.protocol import ChatLM, Completion
from promptopt.lm.scripted import ScriptedLM
from tests.fixtures_gguf import write_tiny_gguf

MESSAGES = [{"role": "system", "content": "Answer briefly."}, {"role": "user", "content": "日本の首都は?"}]


def echo(messages: object) -> str:
    return "Answer: " + str(messages[-1]["content"])  # type: ignore[index]


@pytest.fixture(scope="module", params=["llama_cpp", "llama_cpp_cached", "scripted", "dspy_chat"])
def lm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChatLM]:
    folder: Path = tmp_path_factory.mktemp("lm")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        if request.param == "scripted":
            yield ScriptedLM(echo, n_ctx=200)
        elif request.param == "dspy_chat":
            yield DspyChatLM(ScriptedLM(echo, n_ctx=200), n_ctx=200)
        else:
            path = write_tiny_gguf(folder / "tiny.gguf")
            cache = folder if request.param == "llama_cpp_cached" else None
            model = LlamaCpp(path, cache_dir=cache, n_ctx=200, n_threads=1, max_tokens=12)
            yield model
            model.close()


def test_it_is_a_chat_lm(lm: ChatLM) -> None:
    assert isinstance(lm, ChatLM)
    assert as_chat_lm(lm) is lm
    assert lm.name
    assert len(lm.fingerprint) == 64
    assert lm.fingerprint == lm.fingerprint
    assert lm.n_ctx == 200


def test_completion_is_consistent(lm: ChatLM) -> None:
    done = lm.complete_messages(MESSAGES, max_tokens=12, temperature=0.0, seed=1)
    assert isinstance(done, Completion)
    assert done.finish_reason in ("stop", "length")
    assert 0 <= done.prompt_tokens_computed <= done.prompt_tokens
    assert done.prompt_tokens > 0
    assert done.completion_tokens >= 0
    assert done.latency_s >= 0
    again = lm.complete_messages(MESSAGES, max_tokens=12, temperature=0.0, seed=1)
    assert (again.text, again.prompt_tokens) == (done.text, done.prompt_tokens)


def test_messages_are_not_changed_and_threads_agree(lm: ChatLM) -> None:
    before = copy.deepcopy(MESSAGES)
    with ThreadPoolExecutor(8) as pool:
        texts = set(pool.map(lambda _: lm.complete_messages(MESSAGES, max_tokens=12).text, range(16)))
    assert len(texts) == 1
    assert before == MESSAGES


def test_stop_is_not_in_the_answer(lm: ChatLM) -> None:
    full = lm.complete_messages(MESSAGES, max_tokens=12).text
    stop = full[2:5]
    assert lm.complete_messages(MESSAGES, max_tokens=12, stop=[stop]).text == full[: full.index(stop)]


def test_longer_prompts_count_more_tokens_and_too_long_ones_fail(lm: ChatLM) -> None:
    long = [{"role": "user", "content": "word " * 2000}]
    assert lm.count_tokens(long) > lm.count_tokens(MESSAGES) > 0
    with pytest.raises(ContextLengthError):
        lm.complete_messages(long, max_tokens=5)


def test_empty_prompts_are_refused(lm: ChatLM) -> None:
    with pytest.raises(ValueError, match="no messages"):
        lm.complete_messages([])


def test_a_program_with_it_can_be_copied(lm: ChatLM) -> None:
    if not isinstance(lm, dspy.LM):
        pytest.skip("not a dspy.LM itself")
    program = dspy.Predict("question -> answer")
    program.set_lm(lm)
    copied = program.deepcopy().lm
    assert copied is not None
    assert copied.complete_messages(MESSAGES, max_tokens=4).text == lm.complete_messages(MESSAGES, max_tokens=4).text
