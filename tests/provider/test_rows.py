"""DSPy's training data as rows: exactly the text of the adapter, split by content."""

from typing import Any

import dspy
import pytest

import promptopt as po
from promptopt.errors import DataError
from promptopt.layout.dspy_adapter import note_layout, signature_spec
from promptopt.layout.render import render_completion, render_messages
from promptopt.layout.spec import Layout
from promptopt.provider.rows import split_rows, training_rows


def chat(question: str, answer: str, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}], **more}


def test_rows_are_the_text_of_the_layout() -> None:
    signature = dspy.Signature("document, question -> answer")
    spec = signature_spec(signature)
    inputs, outputs = {"document": "Rome is in Italy.", "question": "Where is Rome?"}, {"answer": "Italy"}
    demo = {"document": "d", "question": "q", "answer": "a"}
    for name, layout in po.LAYOUTS.items():
        values = {**outputs, "reasoning": "It says so."} if layout.reasoning else outputs
        data = po.LayoutAdapter(layout).format_finetune_data(signature, [demo], inputs, values)
        (row,) = training_rows([data])
        asked = render_messages(layout, spec, [demo], inputs)
        given = [message.model_dump() for message in row.prompt]
        assert ([*given, {"role": "assistant", "content": row.prefill}] if row.prefill else given) == asked, name
        assert row.completion == render_completion(layout, spec, values).rstrip(), name


def test_a_predictor_of_its_own_layout_is_trained_in_it() -> None:
    signature = dspy.Signature("question -> answer").with_instructions("Answer.")
    own = Layout(output_style="xml", prefill=True)
    written = po.LayoutAdapter(own).format_finetune_data(signature, [], {"question": "q"}, {"answer": "a"})
    note_layout(signature, own)
    assert po.LayoutAdapter().format_finetune_data(signature, [], {"question": "q"}, {"answer": "a"}) == written
    assert written["prefill"] == "<answer>"


def test_equal_rows_count_once_and_equal_prompts_stay_together() -> None:
    data = [chat(f"question {n}", f"answer {m}\n") for n in range(50) for m in (1, 2, 2)]
    rows = training_rows(data)
    assert [row.completion for row in rows[:2]] == ["answer 1", "answer 2"]
    train, val = split_rows(rows, 0.2)
    assert (len(train) + len(val), len({row.id for row in rows})) == (100, 100)
    assert not {row.prompt for row in train} & {row.prompt for row in val}
    assert 4 <= len(val) <= 40
    # A row's side depends on its own prompt: more data moves none.
    more, more_val = split_rows([*rows, *training_rows([chat(f"new {n}", "a") for n in range(50)])], 0.2)
    assert set(val) <= set(more_val)
    assert set(train) <= set(more)


@pytest.mark.parametrize("share", [1e-9, 1 - 1e-9])
def test_both_sides_have_a_row(share: float) -> None:
    train, val = split_rows(training_rows([chat(f"question {n}", "a") for n in range(5)]), share)
    assert min(len(train), len(val)) == 1


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ([], "no training data"),
        ([{"prompt": "q", "completion": "a"}], "Item 1 .*'completion', 'prompt'"),
        ([chat("q", "a", reward=1.0)], "Item 1 .*'reward'"),
        ([chat("q", " \n")], "Item 1 .*with text"),
        ([chat("q", "Answer: a", prefill="Reply:")], "prefill 'Reply:'"),
        ([chat("q", "Reply: ", prefill="Reply:")], "prefill 'Reply:'"),
        ([{"messages": [{"role": "assistant", "content": "a"}, {"role": "user", "content": "q"}]}], "'user'"),
        ([{"messages": [{"role": "user", "content": [{"type": "image"}]}, {"role": "assistant"}]}], "one text"),
    ],
)
def test_data_of_another_form_is_refused(data: list[dict[str, Any]], said: str) -> None:
    with pytest.raises(DataError, match=said):
        training_rows(data)


def test_one_prompt_cannot_be_split() -> None:
    with pytest.raises(DataError, match="1 distinct prompt"):
        split_rows(training_rows([chat("q", "a"), chat("q", "b")]), 0.5)
