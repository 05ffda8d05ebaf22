"""Models whose cache is not a plain one: recurrent states and sliding windows, against plain `llama_cpp.Llama`."""

import random
from pathlib import Path

import llama_cpp
import pytest

from promptopt.errors import LMError, ModelError
from promptopt.lm.llama_cpp.embedding import GgufEmbedder
from promptopt.lm.llama_cpp.facade import LlamaCpp
from promptopt.lm.llama_cpp.model import CapacityWarning, NativeModel
from tests.fixtures_architectures import write_tiny_gemma2, write_tiny_mamba
from tests.fixtures_gguf import write_tiny_gguf


def plain_answers(path: Path, prompts: list[list[int]], count: int) -> list[list[int]]:
    plain = llama_cpp.Llama(str(path), n_ctx=1024, n_threads=1, n_threads_batch=1, verbose=False)
    answers = []
    for prompt in prompts:
        plain.reset()
        tokens: list[int] = []
        for token in plain.generate(prompt, temp=0.0):
            if llama_cpp.llama_vocab_is_eog(plain._model.vocab, token) or len(tokens) == count:
                break
            tokens.append(token)
        answers.append(tokens)
    plain.close()
    return answers


def prompts_with_common_beginnings(count: int) -> list[list[int]]:
    rng = random.Random(0)
    heads = [[rng.randrange(256) for _ in range(length)] for length in (200, 120)]
    return [heads[n % 2] + [rng.randrange(256) for _ in range(rng.randint(5, 40))] for n in range(count)]


def test_recurrent_states_are_reused_whole(tmp_path: Path) -> None:
    path = write_tiny_mamba(tmp_path / "mamba.gguf")
    prompts = prompts_with_common_beginnings(10)
    prompts += [prompts[0], prompts[3]]
    expected = plain_answers(path, prompts, 8)
    lm = LlamaCpp(path, cache_dir=None, n_threads=1, parallel=3, n_ctx=1024)
    assert not lm.chat.model.can_reuse_prefixes
    assert [lm.chat.generate_tokens(prompt, 8) for prompt in prompts] == expected
    before = lm.chat.stats()
    assert before.prompt_tokens_computed == before.prompt_tokens, "one by one nothing says what will be shared"
    # Two nearly tied tokens may change places: the state is computed in other pieces.
    found = lm.chat.generate_many(prompts, 8)
    assert sum(a == b for a, b in zip(found, expected, strict=True)) >= len(prompts) - 1
    after = lm.chat.stats()
    computed = after.prompt_tokens_computed - before.prompt_tokens_computed
    assert computed < (after.prompt_tokens - before.prompt_tokens) / 2
    assert lm.chat.generate_tokens(prompts[1], 8) == expected[1]
    lm.close()


def test_sliding_windows_are_cut_and_copied_like_any_cache(tmp_path: Path) -> None:
    path = write_tiny_gemma2(tmp_path / "gemma2.gguf")
    prompts = prompts_with_common_beginnings(10)
    expected = plain_answers(path, prompts, 8)
    lm = LlamaCpp(path, cache_dir=None, n_threads=1, parallel=3, n_ctx=1024)
    assert [lm.chat.generate_tokens(prompt, 8) for prompt in prompts] == expected
    stats = lm.chat.stats()
    assert stats.prompt_tokens_computed < stats.prompt_tokens / 2
    found = lm.chat.generate_many(prompts, 8)
    assert sum(a == b for a, b in zip(found, expected, strict=True)) >= len(prompts) - 1
    lm.close()


def test_less_memory_means_fewer_requests_at_once_and_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_tiny_gguf(tmp_path / "m.gguf", n_ctx_train=4096)
    lm = LlamaCpp(path, cache_dir=None, n_threads=1, parallel=8, n_ctx=4096)
    real = NativeModel.make_context

    def short_of_memory(self: NativeModel, tokens: int, lanes: int | None = None) -> object:
        if tokens > 512 and (lanes or self.lanes) > 2:
            raise ModelError("llama.cpp cannot make a context: out of memory.")
        return real(self, tokens, lanes)

    monkeypatch.setattr(NativeModel, "make_context", short_of_memory)
    caught: list[str] = []
    monkeypatch.setattr("warnings.warn", lambda message, *_, **__: caught.append(str(message)))
    prompts = [[n % 256] * 700 for n in range(6)]
    assert len(lm.chat.generate_many(prompts, 2)) == 6
    assert lm.parallel == 2
    assert caught == ["m.gguf: only 2 requests of 702 tokens fit into memory at once."]
    monkeypatch.setattr(
        NativeModel, "make_context", lambda self, tokens, lanes=None: real(self, tokens, lanes) if tokens <= 1024
        else (_ for _ in ()).throw(ModelError("out of memory.")),
    )  # fmt: skip
    with pytest.raises(LMError, match="Not even one request of 3002 tokens fits"):
        lm.chat.generate_tokens([1] * 3000, 2)
    assert lm.chat.generate_tokens([1] * 30, 2), "what fits goes on"
    lm.close()


def test_more_requests_than_memory_allows_are_refused_at_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_tiny_gguf(tmp_path / "m.gguf", n_ctx_train=4096)
    per_lane = 4096 * 2 * 2 * 32 * 2
    monkeypatch.setattr("promptopt.lm.llama_cpp.model._free_memory", lambda: 7 * per_lane)
    with pytest.warns(CapacityWarning, match=r"3 requests run at once, not 8"):
        lm = LlamaCpp(path, cache_dir=None, n_threads=1, parallel=8, n_ctx=4096)
    assert lm.parallel == 3
    lm.close()
    lm = LlamaCpp(path, cache_dir=None, n_threads=1, n_ctx=4096)
    assert lm.parallel == 3, "chosen silently where nothing was asked for"
    lm.close()


def test_numbers_that_are_not_finite_are_an_error(tmp_path: Path) -> None:
    import gguf

    path = write_tiny_gguf(tmp_path / "m.gguf", file_type="f32")
    reader = gguf.GGUFReader(path, "r+")
    norm = next(tensor for tensor in reader.tensors if tensor.name == "output_norm.weight")
    norm.data[:] = float("nan")
    del norm, reader
    lm = LlamaCpp(path, cache_dir=None, n_threads=1)
    with pytest.raises(LMError, match="not finite"):
        lm.complete_messages([{"role": "user", "content": "a"}])
    lm.close()


def test_an_embedder_needs_no_chat_template(tmp_path: Path) -> None:
    path = write_tiny_gguf(tmp_path / "m.gguf", template=None)
    embedder = GgufEmbedder(path, n_threads=1)
    vectors = embedder(["Tokyo is a city.", "Tokyo is a city.", "42"])
    assert vectors.shape == (3, 64)
    assert (vectors[0] == vectors[1]).all()
    assert abs(float(vectors[0] @ vectors[0]) - 1) < 1e-5
    embedder.close()
