"""Rows: the marks cover exactly the answers, and the text is what the chat template writes."""

import random

import corpus
import drills
import layouts
import pytest
import rows
import schedule

from promptopt.starter.locate import starter_dir

transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def tok() -> "transformers.PreTrainedTokenizerFast":
    return transformers.AutoTokenizer.from_pretrained(starter_dir())


def test_copy_rows_are_told_by_earlier_tokens() -> None:
    rng = random.Random(1)
    for _ in range(100):
        ids, marks = drills.copy_ids(rng, 500)
        assert len(ids) == len(marks) and any(marks)
        assert all(ids[i] in ids[:i] for i, mark in enumerate(marks) if mark)


def test_marks_follow_spans() -> None:
    offsets = [(0, 2), (2, 3), (3, 6), (6, 7)]
    assert rows.marked(offsets, ((2, 3), (5, 7))) == [False, True, True, True]


def test_supervised_tokens_of_a_layout_row_are_its_answer(tok: "transformers.PreTrainedTokenizerFast") -> None:
    stage = schedule.Stage(0, {"layout": 1.0}, (2, 5), 600)
    for row in rows.RowMaker(tok, 2).make(stage, 40):
        first = row.marks.index(True)
        assert all(row.marks[first:]) and row.ids[-1] == tok.eos_token_id
        assert "<|im_start|>assistant\n" in tok.decode(row.ids[:first])


def test_rows_are_deterministic(tok: "transformers.PreTrainedTokenizerFast") -> None:
    stage = schedule.STAGES[-1]
    assert rows.RowMaker(tok, 3).make(stage, 30) == rows.RowMaker(tok, 3).make(stage, 30)


def test_text_is_what_the_chat_template_writes(tok: "transformers.PreTrainedTokenizerFast") -> None:
    rng = random.Random(4)
    for _ in range(30):
        example = corpus.sample(rng, 3)
        layout = layouts.draw_layout(rng, example.japanese).model_copy(update={"prefill": False, "reasoning": False})
        messages = layouts.render_messages(layout, layouts.signature(example), [], example.values)
        prompt, answer, completion = layouts.write(layout, example, [])
        assert prompt == tok.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        assert answer == completion
