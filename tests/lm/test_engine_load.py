"""The engine over thousands of requests and from many threads: no leak, nobody starves, no wrong answer."""

import random
import resource
import threading
import time
from pathlib import Path

import pytest

from promptopt.lm.llama_cpp.facade import LlamaCpp
from tests.lm.test_engine import LONG, user


@pytest.mark.slow
def test_no_leak_over_10_000_requests(gguf_path: Path) -> None:
    lm = LlamaCpp(gguf_path, cache_dir=None, n_threads=1, parallel=16)
    rng = random.Random(0)

    def burst(count: int) -> int:
        prompts = [[rng.randrange(256) for _ in range(rng.randint(1, 24))] for _ in range(count)]
        lm.chat.generate_many(prompts, 1)
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    before = burst(2000)
    after = [burst(1000) for _ in range(8)][-1]
    assert after - before < 8 << 10, f"{after - before} KiB more after 8,000 requests"
    assert lm.chat.stats().requests_done == 10_000
    lm.close()


@pytest.mark.parametrize("seconds", [2.0, pytest.param(60.0, marks=pytest.mark.slow)])
def test_64_threads(lm: LlamaCpp, seconds: float) -> None:
    texts = [f"{'shared ' * (n % 4)}question {n}" for n in range(40)]
    expected = [lm.complete_messages(user(text), max_tokens=4).text for text in texts]
    until = time.monotonic() + seconds
    wrong: list[str] = []
    served = [0] * 64

    def work(number: int) -> None:
        rng = random.Random(number)
        while time.monotonic() < until:
            n = rng.randrange(len(texts))
            if rng.random() < 0.1:
                lm.chat.submit(lm.chat_request(user(texts[n]), max_tokens=50, grammar=LONG)).cancel()
            elif lm.complete_messages(user(texts[n]), max_tokens=4).text != expected[n]:
                wrong.append(texts[n])
            served[number] += 1

    threads = [threading.Thread(target=work, args=(n,)) for n in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=seconds + 60)
    assert not any(thread.is_alive() for thread in threads)
    assert not wrong
    assert min(served) > 0, "nobody starves"
