"""`ScriptedLM` and `DspyChatLM`."""

import copy
from concurrent.futures import ThreadPoolExecutor

import dspy
import pytest
from dspy.lm15 import ContextLengthError as Lm15ContextLengthError
from dspy.lm15 import Message, Request, Response, ServerError, Usage
from dspy.utils.exceptions import LMProviderError

from promptopt.errors import ConfigError, ContextLengthError, LMError
from promptopt.lm.dspy_chat import DspyChatLM, as_chat_lm
from promptopt.lm.scripted import ScriptedLM


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def test_list_is_replayed_in_order_and_ends_with_an_error() -> None:
    lm = ScriptedLM(["one", "two"])
    assert [lm.complete_messages(user("x")).text for _ in range(2)] == ["one", "two"]
    with pytest.raises(LMError, match="has 2 completions"):
        lm.complete_messages(user("x"))


def test_mapping_finds_the_longest_key() -> None:
    lm = ScriptedLM({"Japan": "Tokyo", "capital of Japan": "Tōkyō", "Japan?": "exact"})
    assert lm.complete_messages(user("Japan?")).text == "exact"
    assert lm.complete_messages(user("The capital of Japan, please")).text == "Tōkyō"
    with pytest.raises(LMError, match="No key of the script occurs"):
        lm.complete_messages(user("France"))


def test_function_and_requests() -> None:
    lm = ScriptedLM(lambda messages: messages[-1]["content"].upper())
    assert lm.complete_messages(user("a b"), max_tokens=3, temperature=0.5, seed=1, stop=[" "]).text == "A"
    request = lm.requests[0]
    assert (request.max_tokens, request.temperature, request.seed, request.stop) == (3, 0.5, 1, (" ",))
    assert request.messages == ({"role": "user", "content": "a b"},)
    broken = ScriptedLM(lambda messages: messages[99]["content"])
    with pytest.raises(LMError, match="IndexError"):
        broken.complete_messages(user("x"))


def test_scripted_failures_never_become_answers() -> None:
    lm = ScriptedLM([RuntimeError("server dead"), "fine"])
    with pytest.raises(LMProviderError, match="server dead"):
        lm("x")
    assert lm("x") == ["fine"]
    with pytest.raises(LMError, match="gave int"):
        ScriptedLM([3]).complete_messages(user("x"))  # type: ignore[list-item]
    with pytest.raises(ConfigError, match="one text"):
        ScriptedLM("text")
    with pytest.raises(ContextLengthError, match="n_ctx is 2"):
        ScriptedLM(["a"], n_ctx=2).complete_messages(user("a b c"))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_in_a_dspy_program() -> None:
    lm = ScriptedLM(["[[ ## answer ## ]]\nTokyo\n\n[[ ## completed ## ]]"])
    with dspy.context(lm=lm):
        assert dspy.Predict("question -> answer")(question="Capital of Japan?").answer == "Tokyo"
    assert [message["role"] for message in lm.requests[0].messages] == ["system", "user"]


def test_copies_share_the_script_and_threads_get_one_each() -> None:
    lm = ScriptedLM([str(n) for n in range(100)])
    copies = [lm, lm.copy(), copy.deepcopy(lm), lm.copy(temperature=1.0)]
    with ThreadPoolExecutor(8) as pool:
        texts = list(pool.map(lambda n: copies[n % 4].complete_messages(user("x")).text, range(100)))
    assert sorted(texts, key=int) == [str(n) for n in range(100)]
    assert len(lm.requests) == 100


def test_request_number_n_of_a_list_gets_text_number_n() -> None:
    lm = ScriptedLM([str(n) for n in range(200)], parallel=8)
    assert lm.parallel == lm.copy().parallel == 8
    with ThreadPoolExecutor(8) as pool:
        texts = list(pool.map(lambda n: lm.complete_messages(user(f"asked {n}")).text, range(200)))
    for text, number in zip(texts, range(200), strict=True):
        assert lm.requests[int(text)].messages[-1]["content"] == f"asked {number}"
    with pytest.raises(ConfigError, match="parallel is 0"):
        ScriptedLM([], parallel=0)


class ServerStandIn:
    """An engine as a server client would be: it may fail, refuse, or answer nothing."""

    def __init__(self) -> None:
        self.requests: list[Request] = []

    def complete(self, request: Request) -> Response:
        self.requests.append(request)
        text = request.messages[-1].text
        if text == "dead":
            raise ServerError("connection refused")
        if text == "long":
            raise Lm15ContextLengthError("too long")
        if text == "bug":
            raise ZeroDivisionError("bug")
        reason = "content_filter" if text == "filtered" else "length" if text == "cut" else "stop"
        usage = Usage(input_tokens=7, output_tokens=2, cache_read_tokens=4)
        return Response(id=None, model="m", message=Message.assistant("ok"), finish_reason=reason, usage=usage)


def test_any_dspy_lm_becomes_a_chat_lm() -> None:
    engine = ServerStandIn()
    lm = dspy.LM("openai/m", engine=engine, temperature=0.3, max_tokens=9, num_retries=0, cache=False)
    chat = as_chat_lm(lm)
    assert isinstance(chat, DspyChatLM)
    done = chat.complete_messages([{"role": "system", "content": "s"}, *user("hi")], stop=["\n"], seed=3)
    assert (done.text, done.finish_reason, done.prompt_tokens, done.prompt_tokens_computed) == ("ok", "stop", 7, 3)
    config = engine.requests[0].config
    assert (config.temperature, config.max_tokens, config.stop, config.seed) == (0.3, 9, ("\n",), 3)
    assert engine.requests[0].system == "s"
    assert chat.complete_messages(user("cut"), max_tokens=2, temperature=0.0).finish_reason == "length"
    assert engine.requests[1].config.temperature == 0.0
    for text, expected in {"dead": LMError, "bug": LMError, "filtered": LMError, "long": ContextLengthError}.items():
        with pytest.raises(expected):
            chat.complete_messages(user(text))
    assert chat.n_ctx is None
    assert chat.count_tokens(user("12345678")) == 2
    assert chat.fingerprint == DspyChatLM(lm.copy()).fingerprint != DspyChatLM(lm.copy(temperature=1.0)).fingerprint


def test_as_chat_lm() -> None:
    lm = ScriptedLM(["a"])
    assert as_chat_lm(lm) is lm
    with pytest.raises(ConfigError, match="str is no language model"):
        as_chat_lm("openai/gpt")
