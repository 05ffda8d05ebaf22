"""The response cache: hits, misses, killed writers, several processes, eviction, broken disks."""

import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from promptopt.lm.cache import CacheWarning, ResponseCache, cache_key
from promptopt.lm.llama_cpp.facade import LlamaCpp
from tests.fixtures_gguf import write_tiny_gguf

MESSAGES = [{"role": "user", "content": "東京?"}]


def test_hit_and_miss(tmp_path: Path) -> None:
    with ResponseCache(tmp_path) as cache:
        assert cache.get("a") is None
        cache.put("a", {"text": "日本 \ud800", "n": 1})
        cache.put("a", {"text": "日本", "n": 2})
        assert cache.get("a") == {"text": "日本", "n": 2}
    with ResponseCache(tmp_path) as again:
        assert again.get("a") == {"text": "日本", "n": 2}


def test_key_depends_on_everything() -> None:
    base = {"model": "x", "prompt": [1, 2], "sampling": {"temperature": 0.0}}
    keys = {cache_key(base), cache_key({**base, "model": "y"}), cache_key({**base, "prompt": [1, 2, 3]})}
    assert len(keys) == 3
    assert cache_key(base) == cache_key(dict(reversed(base.items())))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_lm_answers_from_it(gguf_path: Path, tmp_path: Path) -> None:
    first = LlamaCpp(gguf_path, cache_dir=tmp_path, n_threads=1, max_tokens=6)
    made = first.complete_messages(MESSAGES)
    assert not made.cached
    second = LlamaCpp(gguf_path, cache_dir=tmp_path, n_threads=1, max_tokens=6)
    assert second.complete_messages(MESSAGES) == replace(made, cached=True, prompt_tokens_computed=0)
    assert second(messages=MESSAGES) == [made.text]
    # Greedy answers do not depend on the seed; everything else makes a new request.
    assert second.complete_messages(MESSAGES, seed=9).cached
    assert not second.complete_messages(MESSAGES, max_tokens=5).cached
    assert not second.complete_messages(MESSAGES, stop=["zzz"]).cached
    assert not second.complete_messages(MESSAGES, temperature=1.0, seed=1).cached
    assert not second.complete_messages(MESSAGES, temperature=1.0, seed=2).cached
    assert second.complete_messages(MESSAGES, temperature=1.0, seed=1).cached
    other = write_tiny_gguf(tmp_path / "other.gguf", seed=1)
    assert not LlamaCpp(other, cache_dir=tmp_path, n_threads=1, max_tokens=6).complete_messages(MESSAGES).cached
    second.close()
    assert first.complete_messages(MESSAGES).cached


def test_default_folder_and_off(gguf_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    LlamaCpp(gguf_path, cache_dir=None, n_threads=1).complete_messages(MESSAGES, max_tokens=2)
    assert not (tmp_path / "promptopt" / "responses").exists()
    LlamaCpp(gguf_path, n_threads=1).complete_messages(MESSAGES, max_tokens=2)
    assert (tmp_path / "promptopt" / "responses" / "responses.sqlite").is_file()


def test_threads(tmp_path: Path) -> None:
    with ResponseCache(tmp_path) as cache, ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: cache.put(f"k{n % 50}", {"n": n % 50}), range(400)))
        assert all(cache.get(f"k{n}") == {"n": n} for n in range(50))


WRITER = """
import sys
from pathlib import Path
from promptopt.lm.cache import ResponseCache
cache = ResponseCache(Path(sys.argv[1]))
for number in range(10**9):
    cache.put(f"{sys.argv[2]}-{number}", {"n": number, "text": "x" * 2000})
    print(number, flush=True)
"""


def test_killed_writers_leave_every_acknowledged_answer(tmp_path: Path) -> None:
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), name], stdout=subprocess.PIPE, text=True)
        for name in ("a", "b")
    ]
    # Killed in the middle of their work, however long this machine took to start them.
    begun = [[writer.stdout.readline() for _ in range(12)] for writer in writers if writer.stdout is not None]
    time.sleep(0.2)
    for writer in writers:
        writer.send_signal(signal.SIGKILL)
    printed = [("".join(lines) + writer.communicate()[0]).split() for lines, writer in zip(begun, writers, strict=True)]
    assert all(len(lines) > 10 for lines in printed)
    with ResponseCache(tmp_path) as cache:
        for name, lines in zip("ab", printed, strict=True):
            # The last line may be cut off; every whole line before it stands for a stored answer.
            for number in lines[:-1]:
                assert cache.get(f"{name}-{number}") == {"n": int(number), "text": "x" * 2000}
        cache.put("after", {"n": 1})
        assert cache.get("after") == {"n": 1}


def test_eviction_takes_the_oldest(tmp_path: Path) -> None:
    with ResponseCache(tmp_path, max_bytes=50_000) as cache:
        for number in range(100):
            cache.put(f"k{number:03}", {"text": "x" * 1000})
        left = [number for number in range(100) if cache.get(f"k{number:03}") is not None]
        assert 30 < len(left) < 50
        assert left == list(range(100 - len(left), 100))


def test_broken_places_warn_once_and_lose_nothing(gguf_path: Path, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    lm = LlamaCpp(gguf_path, cache_dir=blocked, n_threads=1, max_tokens=4)
    with pytest.warns(CacheWarning, match="cannot be used") as caught:
        texts = {lm.complete_messages(MESSAGES).text for _ in range(3)}
    assert len(caught) == 1
    assert len(texts) == 1


def test_damaged_file_steps_aside(tmp_path: Path) -> None:
    (tmp_path / "responses.sqlite").write_bytes(b"not a database" * 1000)
    cache = ResponseCache(tmp_path)
    with pytest.warns(CacheWarning, match="DatabaseError"):
        cache.put("a", {"n": 1})
        assert cache.get("a") is None


def test_full_disk_steps_aside(tmp_path: Path) -> None:
    cache = ResponseCache(tmp_path)
    cache.put("a", {"n": 1})
    pages = cache._connection().execute("PRAGMA page_count").fetchone()[0]
    cache._connection().execute(f"PRAGMA max_page_count = {pages}")
    with pytest.warns(CacheWarning, match="full"):
        for number in range(50):
            cache.put(f"big{number}", {"text": "x" * 5000})
    assert cache.get("a") == {"n": 1}
    cache.close()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.warns(CacheWarning):
        ResponseCache(tmp_path).put("a", {"n": 1})


def _put_many(folder: Path, start: int) -> None:
    with ResponseCache(folder) as cache, warnings.catch_warnings():
        warnings.simplefilter("error")
        for number in range(start, start + 50):
            cache.put(str(number), {"n": number})


def test_processes_share_it(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_put_many, args=(tmp_path, 50 * n)) for n in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    with sqlite3.connect(tmp_path / "responses.sqlite") as connection:
        assert connection.execute("SELECT COUNT(*) FROM responses").fetchone()[0] == 100
    connection.close()
