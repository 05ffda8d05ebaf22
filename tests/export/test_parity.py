"""Parity: the reference of transformers against llama.cpp, on the real thing and on broken ones."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from promptopt.errors import ExportError
from promptopt.export.convert import convert_to_gguf
from promptopt.export.parity import ReferencePrompt, compare, hf_reference, prompt_text, require_parity
from promptopt.records import ChatMessage
from tests.export.llama_runner import Runner
from tests.export.tiny_models import TEXTS, llama3_tokenizer, save_model


def chat(user: str, prefill: str = "", system: str = "Answer.") -> list[ChatMessage]:
    messages = [ChatMessage(role="system", content=system), ChatMessage(role="user", content=user)]
    return messages + ([ChatMessage(role="assistant", content=prefill)] if prefill else [])


PROMPTS = [chat(text, prefill) for text in TEXTS for prefill in ("", "[[ ## answer ## ]]\n", "{", " the")]


def reading(hf_dir: Path, runner: Runner) -> Callable[[Sequence[ChatMessage]], list[int]]:
    tokenizer = AutoTokenizer.from_pretrained(hf_dir)
    return lambda messages: runner.tokenize(prompt_text(tokenizer, messages))


@pytest.mark.parametrize("name", ["llama", "qwen2", "llama3"])
def test_an_export_has_parity(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    if name == "llama3":
        hf_dir = save_model(tmp_path / "hf", "llama", llama3_tokenizer())
    else:
        hf_dir = request.getfixturevalue(f"{name}_dir")
    reference = hf_reference(hf_dir, PROMPTS, max_new_tokens=8, greedy_prompts=6)
    with Runner(convert_to_gguf(hf_dir, tmp_path / "m.gguf", outtype="f32").path) as runner:
        report = compare(reference, reading(hf_dir, runner), runner.greedy, "f32")
    assert report.prompts == report.token_ids_equal == len(PROMPTS) and report.first_mismatch == ""
    assert report.greedy_prompts == report.greedy_equal == 6 and report.max_new_tokens == 8
    lengths = [len(prompt.greedy_ids) for prompt in reference if prompt.greedy_ids is not None]
    assert report.mean_agreed_tokens == sum(lengths) / 6 > 0
    require_parity(report)


def test_a_prefill_continues_the_generation_prompt_as_one_string(llama_dir: Path) -> None:
    plain, filled = hf_reference(llama_dir, [chat("x"), chat("x", "[[ ## a")], max_new_tokens=1, greedy_prompts=0)
    assert filled.text == plain.text + "[[ ## a" and plain.text.endswith("<|im_start|>assistant\n")
    assert filled.ids == tuple(AutoTokenizer.from_pretrained(llama_dir).encode(filled.text))
    assert filled.greedy_ids is None


def test_bos_stands_once(tmp_path: Path) -> None:
    hf_dir = save_model(tmp_path / "hf", "llama", llama3_tokenizer())
    (prompt,) = hf_reference(hf_dir, [chat("x")], max_new_tokens=1, greedy_prompts=0)
    assert prompt.ids.count(AutoTokenizer.from_pretrained(hf_dir).bos_token_id) == 1


def reference(ids: tuple[int, ...], greedy: tuple[int, ...] | None) -> ReferencePrompt:
    return ReferencePrompt(
        messages=tuple(chat("x")),
        text="the prompt",
        ids=ids,
        greedy_ids=greedy,
        end_ids=frozenset({0}),
        max_new_tokens=4,
    )


def test_other_tokens_are_reported_and_refused() -> None:
    prompts = [reference((1, 2), None), reference((1, 2, 3), None), reference((9, 2), None)]
    report = compare(prompts, lambda messages: [1, 2], lambda ids, count: [], "q8_0")
    assert report.token_ids_equal == 1
    assert report.first_mismatch == "at token 2: Hugging Face [3], llama.cpp []; prompt 'the prompt'"
    with pytest.raises(ExportError, match=r"cuts 2 of 3 prompts.*at token 2: Hugging Face \[3\]"):
        require_parity(report)


def test_greedy_continuations_are_compared_from_the_same_tokens_up_to_their_end() -> None:
    seen: list[tuple[list[int], int]] = []

    def generate(ids: list[int], count: int) -> list[int]:
        seen.append((ids, count))
        return {1: [5, 6, 0], 2: [5, 7, 8], 3: [5]}[ids[0]]

    prompts = [reference((1,), (5, 6)), reference((2,), (5, 6, 8)), reference((3,), (5, 6)), reference((4,), None)]
    report = compare(prompts, lambda messages: [99], generate, "q4_k_m")
    assert seen == [([1], 4), ([2], 4), ([3], 4)]
    assert (report.greedy_prompts, report.greedy_equal) == (3, 1)
    assert report.mean_agreed_tokens == pytest.approx((2 + 1 + 1) / 3)
    assert report.quantization == "q4_k_m" and report.max_new_tokens == 4


@pytest.mark.parametrize(
    ("prompts", "message"),
    [([], "without prompts"), ([[ChatMessage(role="assistant", content="x")]], "no message before the assistant's")],
)
def test_prompts_that_are_none(prompts: list[list[ChatMessage]], message: str, llama_dir: Path) -> None:
    with pytest.raises(ExportError, match=message):
        hf_reference(llama_dir, prompts, max_new_tokens=1, greedy_prompts=0)


def test_a_template_that_refuses_and_a_missing_one(tmp_path: Path) -> None:
    tokenizer = llama3_tokenizer()
    tokenizer.chat_template = "{{ raise_exception('no system role here') }}"
    hf_dir = save_model(tmp_path / "hf", "llama", tokenizer)
    with pytest.raises(ExportError, match=r"roles: system, user\): no system role here"):
        hf_reference(hf_dir, [chat("x")], max_new_tokens=1, greedy_prompts=0)
    (hf_dir / "chat_template.jinja").unlink()
    with pytest.raises(ExportError, match="no chat template"):
        hf_reference(hf_dir, [chat("x")], max_new_tokens=1, greedy_prompts=0)
