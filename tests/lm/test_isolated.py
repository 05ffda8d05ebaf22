"""`isolated=True`: the same answers from a child process, and what happens when that process dies."""

import contextlib
import gc
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from promptopt.errors import BusyError, ConfigError, ContextLengthError, LMError, ModelError, RequestTimeoutError
from promptopt.lm.llama_cpp.facade import LlamaCpp
from promptopt.lm.llama_cpp.isolation import child_launch
from promptopt.lm.llama_cpp.isolation.isolated import IsolatedEngine
from promptopt.lm.llama_cpp.local_chat import ChatRequest, LocalChat
from promptopt.lm.llama_cpp.lora import lora_set
from promptopt.lm.llama_cpp.model import CapacityWarning, LoadOptions
from promptopt.lm.llama_cpp.sampling import Sampling
from tests.fixtures_gguf import write_tiny_gguf, write_tiny_lora

ENDLESS = 'root ::= "a" root'
"""A grammar under which a request only ends when it has no room left."""
LONG_TOKENS = 15_000
WAIT_S = 30.0


@pytest.fixture(scope="module")
def long_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with room for requests that are still running when something happens to them."""
    return write_tiny_gguf(tmp_path_factory.mktemp("isolated") / "tiny.gguf", n_ctx_train=16384)


@pytest.fixture(scope="module")
def shared(long_path: Path) -> Iterator[LocalChat]:
    chat = load(long_path)
    yield chat
    chat.close()


@pytest.fixture
def chat(shared: LocalChat) -> LocalChat:
    """The shared model, whose last process answered something: it has three deaths before it."""
    assert shared.complete(short("ready"))
    return shared


def load(path: Path, **options: Any) -> LocalChat:
    return LocalChat(path, LoadOptions(**{"n_ctx": 0, "n_threads": 1, "parallel": 2, **options}), isolated=True)


def short(text: str, tokens: int = 2, **settings: Any) -> ChatRequest:
    return ChatRequest(text, tokens, Sampling(), **settings)


def long(text: str = "long") -> ChatRequest:
    return short(text, LONG_TOKENS, grammar=ENDLESS)


def pid_of(chat: LocalChat) -> int:
    assert isinstance(chat.engine, IsolatedEngine)
    pid = chat.engine.pid
    assert pid is not None
    return pid


def kill(chat: LocalChat) -> int:
    """Kill the process and wait until that is known; return what its id was."""
    assert isinstance(chat.engine, IsolatedEngine)
    engine, pid = chat.engine, pid_of(chat)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: engine.pid is None)
    return pid


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_gone(pid: int) -> bool:
    """Whether a process has ended; it may still wait for its parent to take notice."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] in "ZX"
    except FileNotFoundError:
        return True


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_everything_is_as_without_isolation(gguf_path: Path, tmp_path: Path) -> None:
    lora = write_tiny_lora(tmp_path / "lora.gguf", seed=1)
    # Batch-invariant, because two runs do not form the same batches.
    same: dict[str, Any] = {"cache_dir": None, "n_threads": 1, "parallel": 3, "max_tokens": 12, "batch_invariant": True}
    plain, apart = LlamaCpp(gguf_path, **same), LlamaCpp(gguf_path, **same, isolated=True)
    assert (apart.n_ctx, apart.parallel, apart.chat.engine.batch_rule) == (512, 3, plain.chat.engine.batch_rule)
    texts = [f"{'shared ' * (n % 4)}question 東京 {n}" for n in range(12)]
    stop = ("e", "\ud800")
    settings: list[dict[str, Any]] = [
        {},
        {"n": 3, "temperature": 1.0},
        {"logprobs": True, "top_logprobs": 2, "temperature": 0.5},
        {"grammar": 'root ::= "yes" | "no"'},
    ]

    def answers(lm: LlamaCpp) -> list[Any]:
        tuned = lm.with_lora(lora)
        request = ChatRequest(texts[0], 12, Sampling(temperature=1.5, top_k=5, seed=7), stop, logprobs=3)
        done = lm.chat.complete(request)
        found = [[lm(text, **chosen) for chosen in settings] + [tuned(text)] for text in texts[:2]]
        with ThreadPoolExecutor(8) as pool:
            found.append(list(pool.map(lambda text: lm(text)[0], texts)))
        found.append([done.text for done in lm.complete_many([[{"role": "user", "content": text}] for text in texts])])
        lm.chat.free_lora(tuned.lora)
        return [*found, tuned(texts[0]), done.text, done.logprobs, lm.embed(texts), lm.fingerprint]

    assert answers(apart) == answers(plain)
    ours, theirs = apart.chat.stats(), plain.chat.stats()
    assert (ours.requests_done, ours.completion_tokens) == (theirs.requests_done, theirs.completion_tokens)
    again = pickle.loads(pickle.dumps(apart))
    assert isinstance(again.chat.engine, IsolatedEngine)
    for lm in (plain, apart, again):
        lm.close()


def test_streams_and_what_their_receiver_does(chat: LocalChat) -> None:
    whole = chat.complete(short("Stream 東京", 24))
    pending = chat.submit(short("Stream 東京", 24), stream=True)
    pieces = list(pending.stream())
    assert "".join(pieces) == whole.text == pending.result().text
    assert len(pieces) > 3
    left = chat.submit(long(), stream=True)
    iterator = left.stream()
    next(iterator)
    iterator.close()
    with pytest.raises(LMError, match="given up"):
        left.result()
    from promptopt.lm.llama_cpp.requests import GenerationRequest

    def refuse(piece: str) -> None:
        raise ValueError("no room for text")

    request = GenerationRequest([5, 6, 7], LONG_TOKENS, Sampling(), grammar=ENDLESS)
    with pytest.raises(LMError, match="receiver of the text failed: ValueError: no room"):
        chat.engine.submit(request, on_text=refuse).result(WAIT_S)
    assert chat.complete(short("after"), timeout_s=WAIT_S)


def test_errors_are_the_same_ones(chat: LocalChat, long_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot compile the grammar"):
        chat.complete(short("a", grammar="root = nonsense ("))
    with pytest.raises(ContextLengthError, match="Text 1 has"):
        chat.embed(["word " * 9000])
    with pytest.raises(ContextLengthError, match="holds 16384"):
        chat.complete(short("東" * 20000))
    with pytest.raises(ModelError, match="cannot use"):
        chat.complete(short("a", lora=lora_set(long_path)))
    assert chat.complete(short("still alive"))


def test_cancelled_and_timed_out_requests_free_their_place(chat: LocalChat) -> None:
    running = [chat.submit(long(f"long {n}")) for n in range(2)]
    waiting = chat.submit(short("waits"))
    wait_until(lambda: chat.stats().requests_running == 2)
    assert chat.stats().requests_waiting == 1
    waiting.cancel()
    with pytest.raises(RequestTimeoutError, match=r"No answer within 0\.001 s"):
        running[0].result(0.001)
    running[1].future.cancel()
    assert chat.complete(short("next"), timeout_s=WAIT_S)
    assert chat.stats().requests_running == 0


def test_back_pressure(long_path: Path) -> None:
    small = load(long_path, parallel=1, max_waiting=2)
    pending = []
    with stopped(pid_of(small)):
        with pytest.raises(BusyError, match="2 requests are waiting"):
            for number in range(6):
                pending.append(small.submit(short(f"{number}"), wait=False))
        assert len(pending) == 3
    with ThreadPoolExecutor(6) as pool:
        assert len(list(pool.map(lambda n: small.complete(short(f"more {n}")), range(6)))) == 6
    assert all(one.result().completion_tokens for one in pending)
    small.close()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_death_fails_what_the_process_held_and_nothing_else(chat: LocalChat, number: signal.Signals) -> None:
    expected = chat.complete(short("Question", 12))
    before, died = chat.stats(), pid_of(chat)
    running = [chat.submit(long(f"long {n}"), stream=True) for n in range(2)]
    streams = [pending.stream() for pending in running]
    assert [next(stream) for stream in streams] == ["a", "a"]
    waiting = [chat.submit(short(f"waits {n}")) for n in range(3)]
    os.kill(died, number)
    for pending in [*running, *waiting]:
        with pytest.raises(
            LMError, match=rf"tiny\.gguf died with signal {number} \({number.name}\) while .* again for"
        ):
            pending.result(WAIT_S)
    for stream in streams:
        with pytest.raises(LMError, match="died with"):
            list(stream)
    # Several at once: one new process, whoever comes first.
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: chat.complete(short("Question", 12)), range(4)))
    assert {done.text for done in found} == {expected.text}
    assert pid_of(chat) != died
    assert is_gone(died)
    stats = chat.stats()
    assert stats.requests_done == before.requests_done + 4
    assert stats.requests_failed == before.requests_failed + 5
    assert stats.requests_running == stats.requests_waiting == 0


def test_a_death_between_requests_is_not_noticed(chat: LocalChat) -> None:
    died = kill(chat)
    assert chat.stats().requests_running == 0
    assert len(chat.embed(["embedding starts a process too"])) == 1
    assert pid_of(chat) != died
    os.kill(pid_of(chat), signal.SIGINT)
    assert chat.complete(short("Ctrl-C is not for the child"))


def test_requests_during_a_restart_can_be_given_up(chat: LocalChat) -> None:
    kill(chat)
    started = chat.submit(long())
    assert chat.stats().requests_waiting == 1
    started.cancel()
    assert chat.stats().requests_waiting == 0
    assert chat.complete(short("next"), timeout_s=WAIT_S)


def test_three_deaths_without_an_answer_are_enough(long_path: Path) -> None:
    doomed = load(long_path)
    for count in (1, 2, 3):
        pending = doomed.submit(long())
        os.kill(pid_of(doomed), signal.SIGKILL)
        with pytest.raises(LMError, match="died with signal 9") as caught:
            pending.result(WAIT_S)
        assert ("while it held this request" in str(caught.value)) == (count == 1), "later ones had not loaded it yet"
        assert ("started again for the next" in str(caught.value)) == (count < 3)
    with pytest.raises(LMError, match=r"died 3 times in a row without one answer.*SIGKILL.*load the model again"):
        doomed.complete(short("no more"))
    with pytest.raises(LMError, match="3 times"):
        doomed.embed(["no more"])
    assert doomed.stats().requests_failed == 3
    doomed.close()


def test_load_errors_are_the_same_ones(long_path: Path, tmp_path: Path) -> None:
    raw = long_path.read_bytes()
    odd = tmp_path / "odd.gguf"
    odd.write_bytes(raw.replace(b"output_norm.weight", b"output_form.weight"))
    short_file = tmp_path / "short.gguf"
    short_file.write_bytes(raw[: len(raw) // 2])
    mute = write_tiny_gguf(tmp_path / "mute.gguf", template=None)
    for path in (odd, short_file, mute, tmp_path / "missing.gguf"):
        # The first of them is refused by the child only: its vocabulary is in order.
        found = []
        for isolated in (False, True):
            with pytest.raises(ModelError) as caught:
                LocalChat(path, LoadOptions(n_threads=1), isolated=isolated)
            found.append((type(caught.value), str(caught.value)))
        assert found[0] == found[1]


def test_a_child_that_cannot_start_says_why(long_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_launch, "CHILD_MODULE", "promptopt.lm.llama_cpp.no_such_module")
    with pytest.raises(LMError, match=r"exit code 1 while it loaded the model. It said: .*no_such_module.* can import"):
        load(long_path)
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    with pytest.raises(LMError, match="No process can be started"):
        load(long_path)


def test_a_model_that_is_gone_fails_the_restart(tmp_path: Path) -> None:
    path = write_tiny_gguf(tmp_path / "moved.gguf")
    chat = load(path)
    kill(chat)
    path.rename(tmp_path / "elsewhere.gguf")
    with pytest.raises(ModelError, match="There is no model file"):
        chat.complete(short("a"))
    (tmp_path / "elsewhere.gguf").rename(path)
    assert chat.complete(short("a"))
    chat.close()


def test_warnings_come_to_this_process(tmp_path: Path) -> None:
    path = write_tiny_gguf(tmp_path / "wide.gguf", n_ctx_train=1 << 27)
    with pytest.warns(CapacityWarning, match=r"requests run at once, not 200"):
        chat = load(path, parallel=200)
    assert chat.parallel < 200
    chat.close()


def test_close_ends_requests_and_the_process(long_path: Path) -> None:
    chat = load(long_path)
    pid = pid_of(chat)
    pending = [chat.submit(long(f"{n}")) for n in range(4)]
    chat.close()
    assert is_gone(pid)
    for one in pending:
        with pytest.raises(LMError, match="was closed"):
            one.result(WAIT_S)
    chat.close()
    for action in (lambda: chat.complete(short("a")), lambda: chat.embed(["a"])):
        with pytest.raises(LMError, match="was closed"):
            action()
    assert chat.stats().requests_running == 0


def test_close_from_a_callback_and_by_the_garbage_collector(gguf_path: Path) -> None:
    chat = load(gguf_path)
    pid, closed = pid_of(chat), threading.Event()

    def close(_: object) -> None:
        chat.close()
        closed.set()

    chat.submit(short("a")).future.add_done_callback(close)
    assert closed.wait(WAIT_S)
    wait_until(lambda: is_gone(pid))
    dropped = load(gguf_path)
    pid = pid_of(dropped)
    assert dropped.complete(short("a"))
    del dropped
    gc.collect()
    assert is_gone(pid)


def test_a_fork_cannot_use_the_engine_and_does_not_end_it(chat: LocalChat) -> None:
    forked = os.fork()
    if not forked:
        code = 1
        with contextlib.suppress(BaseException):
            try:
                chat.complete(short("in the fork"))
            except LMError as error:
                chat.close()
                code = 0 if "does not survive a fork" in str(error) else 2
        os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(forked, 0)[1]) == 0
    assert chat.complete(short("in the parent"))


# Run from a folder where nothing is installed: promptopt is found by what the script adds to sys.path.
PARENT = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from promptopt.lm.llama_cpp.local_chat import ChatRequest, LocalChat
from promptopt.lm.llama_cpp.model import LoadOptions
from promptopt.lm.llama_cpp.sampling import Sampling
chat = LocalChat(Path(sys.argv[2]), LoadOptions(n_threads=1, n_ctx=0), isolated=True)
pending = chat.submit(ChatRequest("a", 15000, Sampling(), grammar='root ::= "a" root'))
if sys.argv[3] == "forked" and not os.fork():
    signal.pause()
print(chat.engine.pid, os.getpid(), flush=True)
if sys.argv[3] != "ends":
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("way", ["ends", "killed", "forked"])
def test_no_orphan_is_left(long_path: Path, repository: Path, tmp_path: Path, way: str) -> None:
    # Its own session, so that what it forked can be ended with it.
    with subprocess.Popen(
        [sys.executable, "-P", "-c", PARENT, str(repository), str(long_path), way],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as parent:
        assert parent.stdout is not None
        child, session = (int(word) for word in parent.stdout.readline().split())
        assert parent.wait(WAIT_S) == (0 if way == "ends" else -signal.SIGKILL)
        wait_until(lambda: is_gone(child))
        with contextlib.suppress(ProcessLookupError):
            os.killpg(session, signal.SIGKILL)
