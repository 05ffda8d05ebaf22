"""Rows become the tokens that are served, and everything that would train other text is refused."""

from pathlib import Path
from typing import Any

import pytest

from promptopt.errors import DataError, TrainingError
from promptopt.finetune.rows import IGNORED_LABEL, check_no_leak, read_rows, tokenize_rows
from promptopt.records import ChatMessage, TrainingRow
from tests.finetune.tiny_models import CHATML, make_rows, make_tokenizer, write_rows


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return make_tokenizer()


def _row(completion: str = "red", prefill: str = "") -> TrainingRow:
    return TrainingRow(
        id="r", prompt=(ChatMessage(role="user", content="the car is red"),), completion=completion, prefill=prefill
    )


def test_rows_come_back_as_written_whatever_line_separators_they_hold(tmp_path: Path) -> None:
    rows = [_row("red\u2028\u0085end"), *make_rows(3, 0)]
    assert read_rows(write_rows(tmp_path / "rows.jsonl", rows)) == rows


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ('{"id": "a"', "rows.jsonl:2"),
        ('{"id": "a", "prompt": []}', "completion"),
        ('{"id": "a", "prompt": [], "completion": "x"}', "empty prompt"),
        ('{"id": "a", "prompt": [{"role": "assistant", "content": "x"}], "completion": "x"}', "ends with an assistant"),
        ('{"id": "a", "prompt": [{"role": "user", "content": "x"}], "completion": ""}', "empty completion"),
        ('{"id": "a", "prompt": [{"role": "user", "content": "x"}], "completion": "<a>", "prefill": "<a>"}', "empty"),
        (
            '{"id": "a", "prompt": [{"role": "user", "content": "x"}], "completion": "b", "prefill": "<a>"}',
            "start with",
        ),
        ('{"id": "a", "prompt": [{"role": "robot", "content": "x"}], "completion": "b"}', "prompt.0.role"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: str, complaint: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(_row().model_dump_json() + "\n" + line + "\n", encoding="utf-8")
    with pytest.raises(DataError, match=complaint) as caught:
        read_rows(path)
    assert "rows.jsonl:2" in str(caught.value)


def test_missing_and_empty_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_rows(tmp_path / "none.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n", encoding="utf-8")
    with pytest.raises(DataError, match="no rows"):
        read_rows(tmp_path / "empty.jsonl")


def test_shared_rows_are_found_by_id_and_by_text() -> None:
    train, val = make_rows(4, 0), make_rows(4, 1)
    check_no_leak(train, val)
    with pytest.raises(TrainingError, match="1 of 2"):
        check_no_leak(train, [val[0], train[2]])
    with pytest.raises(TrainingError, match="'0-1' = validation row 'other'"):
        check_no_leak(train, [train[1].model_copy(update={"id": "other"})])


@pytest.mark.parametrize("prefill", ["", "[[ answer ]]\n", "<a>"])
def test_tokens_are_the_served_prompt_then_answer_then_end_of_turn(tokenizer: Any, prefill: str) -> None:
    for source in make_rows(8, 3, prefill=prefill):
        (row,) = tokenize_rows([source], tokenizer, 256, 0).rows
        messages = [message.model_dump() for message in source.prompt]
        rendered = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        given = tokenizer(rendered + prefill, add_special_tokens=False)["input_ids"]
        assert list(row.input_ids[: row.prompt_tokens]) == given
        assert row.labels[: len(given)] == [IGNORED_LABEL] * len(given)
        assert tokenizer.decode(row.labels[len(given) :]) == source.completion[len(prefill) :] + "<|im_end|>"
        assert row.input_ids[-1] == tokenizer.eos_token_id


def test_a_merge_across_the_border_is_tokenized_as_it_is_served(tokenizer: Any) -> None:
    # "colour" is one token in the running text; served, "col" is given and "our" generated.
    (row,) = tokenize_rows([_row("what colour", prefill="what col")], tokenizer, 256, 0).rows
    assert tokenizer.decode(list(row.input_ids[row.prompt_tokens :])) == "our<|im_end|>"
    assert tokenizer.decode(list(row.input_ids[: row.prompt_tokens])).endswith("what col")


@pytest.mark.parametrize(
    ("template", "complaint"),
    [
        (None, "no chat template"),
        (CHATML.replace("<|im_end|>", "[end]"), "would never stop"),
        (CHATML.replace("assistant\n{% endif", "assistant\n<think>\n{% endif"), "think block in one"),
        (
            CHATML.replace(
                "{{ message['content'] }}",
                "{% if message['role'] == 'assistant' %}<think></think>{% endif %}{{ message['content'] }}",
            ),
            "think block in front",
        ),
        (CHATML.replace("message['content'] }}", "message['content'] | trim }}"), "If it trims"),
        ("{{ raise_exception('no such role') }}", "refuses these messages"),
    ],
)
def test_a_template_that_would_train_other_text_is_refused(template: str | None, complaint: str) -> None:
    with pytest.raises(TrainingError, match=complaint):
        tokenize_rows([_row(" red ")], make_tokenizer(template), 256, 0)


def test_a_tokenizer_without_end_is_refused() -> None:
    tokenizer = make_tokenizer()
    with pytest.raises(TrainingError, match="never stop"):
        tokenize_rows([_row()], tokenizer, 256, 0, end_ids=frozenset({tokenizer.pad_token_id}))
    tokenizer.eos_token = None
    with pytest.raises(TrainingError, match="EOS"):
        tokenize_rows([_row()], tokenizer, 256, 0)


def test_long_rows_are_never_cut(tokenizer: Any) -> None:
    rows = make_rows(6, 0)
    long = rows[0].model_copy(update={"id": "long", "completion": "red car " * 60})
    long = long.model_copy(update={"completion": long.completion.strip()})
    with pytest.raises(TrainingError, match=r"1 of 7 rows .* longer than 100 .*'long'"):
        tokenize_rows([*rows, long], tokenizer, 100, 0)
    kept = tokenize_rows([*rows, long], tokenizer, 100, 1)
    assert (len(kept.rows), kept.dropped_ids) == (6, ("long",))
    with pytest.raises(TrainingError, match="none is left"):
        tokenize_rows([long], tokenizer, 100, 1)
