"""Prompts and answers as text, read by eye."""

import pytest

from promptopt.errors import DataError
from promptopt.layout.presets import LAYOUTS
from promptopt.layout.render import prefill_text, render_completion, render_messages
from promptopt.layout.scaffold import INCOMPLETE_DEMO
from promptopt.layout.signature import FieldSpec, SignatureSpec
from promptopt.layout.spec import Layout

QA = SignatureSpec(
    "Answer the question from the context.",
    (FieldSpec("question"), FieldSpec("source_text", desc="a passage")),
    (FieldSpec("answer", desc="a few words"),),
)
RATED = SignatureSpec(
    "Rate it.",
    (FieldSpec("text"),),
    (
        FieldSpec(
            "score",
            type_name="int",
            note="        # note: the value you produce must be a single int value",
            type_hint=" (must be formatted as a valid Python int)",
        ),
        FieldSpec("why"),
    ),
)
INPUTS = {"question": "Which capital?", "source_text": "Rome is in Italy."}
DEMO = {"question": "Who?", "source_text": "Ann sings.", "answer": "Ann"}


def texts(layout: Layout, spec: SignatureSpec = QA, demos: tuple[dict, ...] = (), **changes: object) -> list[str]:
    inputs = INPUTS if spec is QA else {"text": "Fine."}
    messages = render_messages(layout.model_copy(update=changes), spec, demos, inputs)
    return [f"{message['role']}|{message['content']}" for message in messages]


def test_xml_query_last() -> None:
    assert texts(LAYOUTS["xml_query_last"], demos=(DEMO,)) == [
        "system|Inputs:\n1. `source_text`: a passage\n2. `question`\nOutputs:\n1. `answer`: a few words\n\n"
        "The input has this form:\n\n"
        "<source_text>\n{source_text}\n</source_text>\n<question>\n{question}\n</question>\n\n"
        "Answer in this form:\n\n<answer>{answer}</answer>\n\n"
        "Task: Answer the question from the context.",
        "user|<source_text>\nAnn sings.\n</source_text>\n<question>\nWho?\n</question>",
        "assistant|<answer>Ann</answer>",
        "user|<source_text>\nRome is in Italy.\n</source_text>\n<question>\nWhich capital?\n</question>\n\n"
        "Answer with <answer>...</answer>.",
    ]


def test_label_bare_says_little() -> None:
    assert texts(LAYOUTS["label_bare"]) == [
        "system|Answer the question from the context.",
        "user|Source text: Rome is in Italy.\nQuestion: Which capital?\n\nReply with the answer only.",
    ]


def test_one_message_holds_everything() -> None:
    assert texts(LAYOUTS["one_message"], demos=(DEMO, DEMO)) == [
        "user|Answer the question from the context.\n\n"
        "Example 1:\n\n## Source text\nAnn sings.\n\n## Question\nWho?\n\nReply: Ann\n\n"
        "Example 2:\n\n## Source text\nAnn sings.\n\n## Question\nWho?\n\nReply: Ann\n\n"
        "## Source text\nRome is in Italy.\n\n## Question\nWhich capital?\n\nReply with the answer only.",
    ]


def test_a_query_on_both_sides_with_the_task_repeated() -> None:
    assert texts(LAYOUTS["query_both_sides"])[-1] == (
        "user|<question>\nWhich capital?\n</question>\n<source_text>\nRome is in Italy.\n</source_text>\n"
        "<question>\nWhich capital?\n</question>\n\n"
        "Answer the question from the context.\n\nAnswer with <answer>...</answer>."
    )


def test_a_query_whose_context_is_missing_is_shown_once() -> None:
    messages = render_messages(LAYOUTS["query_both_sides"], QA, [], {"question": "Which capital?"})
    assert messages[-1]["content"].count("Which capital?") == 1


def test_json_inputs_may_repeat_the_query() -> None:
    shown = texts(LAYOUTS["json_io"], query_position="both", reminder=False)[-1]
    assert shown == (
        'user|{"question": "Which capital?", "source_text": "Rome is in Italy.", "question": "Which capital?"}'
    )


def test_json_holds_native_values_and_names_types() -> None:
    system, user = texts(LAYOUTS["json_io"], RATED)
    assert '{"score": {score}, "why": "{why}"}\n\n`score` must be a single int value' in system
    assert user.endswith('Answer with one JSON object, keys: "score" (int), "why".')
    assert render_completion(LAYOUTS["json_io"], RATED, {"score": 3, "why": 'a "b"\n'}) == (
        '{"score": 3, "why": "a \\"b\\"\\n"}'
    )


def test_inputs_xml_outputs_label() -> None:
    system, user = texts(Layout(field_style="xml", output_style="label", descriptions="names"), RATED)
    assert system == (
        "system|Inputs: `text`. Outputs: Score, Why.\n\nThe input has this form:\n\n<text>\n{text}\n</text>\n\n"
        "Answer in this form:\n\nScore: {score}\nWhy: {why}\n\nScore must be a single int value\n\nTask: Rate it."
    )
    assert user == 'user|<text>\nFine.\n</text>\n\nAnswer with "Score: ..." (int), then "Why: ...".'


def test_bare_answers_of_two_fields() -> None:
    layout = Layout(field_style="label", output_style="bare")
    assert texts(layout, RATED)[-1].endswith(
        "Reply with the score (int), then a line `---`, then the why, nothing else."
    )
    assert render_completion(layout, RATED, {"score": 3, "why": "ok"}) == "3\n---\nok"


def test_instructions_at_either_end_of_the_last_user_message() -> None:
    start = texts(LAYOUTS["label_bare"], demos=(DEMO,), instruction_place="user_start")
    end = texts(LAYOUTS["label_bare"], demos=(DEMO,), instruction_place="user_end")
    assert [text.split("|")[0] for text in start] == ["user", "assistant", "user"]
    assert start[-1].startswith("user|Answer the question from the context.\n\nSource text:")
    assert end[-1].endswith("Which capital?\n\nAnswer the question from the context.\n\nReply with the answer only.")
    assert "Answer the question" not in start[0] + end[0]


def test_a_merged_system_message_stands_before_the_first_user_message() -> None:
    native = texts(Layout(), demos=(DEMO,))
    merged = texts(Layout(system_role="merged"), demos=(DEMO,))
    assert merged[1:] == native[2:]
    assert merged[0] == "user|" + native[0].removeprefix("system|") + "\n\n" + native[1].removeprefix("user|")


def test_no_system_message_where_there_is_nothing_to_say() -> None:
    silent = SignatureSpec("", (FieldSpec("text"),), (FieldSpec("label"),))
    messages = render_messages(LAYOUTS["label_bare"], silent, [], {"text": "x"})
    assert messages == [{"role": "user", "content": "Text: x\n\nReply with the label only."}]


def test_a_prompt_without_inputs_asks_for_the_answer() -> None:
    nothing = SignatureSpec("", (), (FieldSpec("joke"),))
    layout = LAYOUTS["label_bare"].model_copy(update={"reminder": False})
    assert render_messages(layout, nothing, [], {}) == [{"role": "user", "content": "Reply with the joke only."}]


def test_the_japanese_scaffold() -> None:
    layout = Layout(field_style="xml", output_style="xml", language="ja", reasoning=True)
    system, user = texts(layout)
    assert system == (
        "system|入力:\n1. `question`\n2. `source_text`: a passage\n"
        "出力:\n1. `reasoning`: 順を追って考える\n2. `answer`: a few words\n\n"
        "入力の形式:\n\n<question>\n{question}\n</question>\n<source_text>\n{source_text}\n</source_text>\n\n"
        "次の形式で答えてください:\n\n<reasoning>{reasoning}</reasoning>\n<answer>{answer}</answer>\n\n"
        "課題: Answer the question from the context."
    )
    assert user.endswith("<reasoning>...</reasoning>、<answer>...</answer> の形で答えてください。")


@pytest.mark.parametrize("output_style", ["dspy", "xml", "json", "label", "bare"])
@pytest.mark.parametrize("field_style", ["dspy", "xml", "markdown", "label", "json"])
def test_the_japanese_scaffold_holds_no_english_sentence(field_style: str, output_style: str) -> None:
    layout = Layout.model_validate({"field_style": field_style, "output_style": output_style, "language": "ja"})
    spec = SignatureSpec("質問に答える。", (FieldSpec("x"),), (FieldSpec("y"),))
    prompt = "".join(message["content"] for message in render_messages(layout, spec, [], {"x": "値"}))
    for word in ("nput", "utput", "nswer", "espond", "eply", "ask", "form"):
        assert word not in prompt


def test_reasoning_comes_first_and_demos_without_it_keep_their_fields() -> None:
    layout = Layout(reasoning=True)
    messages = texts(layout, demos=(DEMO, {**DEMO, "reasoning": "Ann sings, so Ann."}))
    assert "1. `reasoning` (str): think step by step\n2. `answer`" in messages[0]
    assert messages[2] == "assistant|[[ ## answer ## ]]\nAnn\n\n[[ ## completed ## ]]\n"
    assert messages[4].startswith("assistant|[[ ## reasoning ## ]]\nAnn sings, so Ann.\n\n[[ ## answer ## ]]")
    assert INCOMPLETE_DEMO not in "".join(messages)


def test_only_the_dspy_style_speaks_of_missing_fields() -> None:
    half = ({"question": "Who?", "answer": "Ann"},)
    assert INCOMPLETE_DEMO in texts(Layout(), demos=half)[1]
    assert texts(LAYOUTS["xml_query_last"], demos=half)[1:3] == [
        "user|<question>\nWho?\n</question>",
        "assistant|<answer>Ann</answer>",
    ]


@pytest.mark.parametrize(
    ("output_style", "prefill"),
    [("dspy", "[[ ## answer ## ]]\n"), ("xml", "<answer>"), ("json", '{"answer":'), ("label", "Answer:"), ("bare", "")],
)
def test_prefill(output_style: str, prefill: str) -> None:
    layout = Layout.model_validate({"output_style": output_style, "prefill": True})
    assert prefill_text(layout, QA) == prefill
    assert render_completion(layout, QA, {"answer": "Ann"}).startswith(prefill)
    messages = render_messages(layout, QA, [], INPUTS)
    assert (messages[-1] == {"role": "assistant", "content": prefill}) == bool(prefill)


def test_labels_that_would_be_alike_fall_back_to_the_names() -> None:
    spec = SignatureSpec("", (FieldSpec("user_name"),), (FieldSpec("User_name"), FieldSpec("b")))
    layout = Layout(field_style="label", output_style="label")
    assert render_completion(layout, spec, {"User_name": "x", "b": ""}) == "User_name: x\nb:"


@pytest.mark.parametrize(
    ("layout", "outputs"),
    [
        (Layout(), {}),
        (LAYOUTS["json_io"], {"other": "x"}),
        (LAYOUTS["label_bare"], {}),
        (Layout(prefill=True, reasoning=True), {"answer": "x"}),
    ],
)
def test_answers_that_could_not_be_read_back_are_refused(layout: Layout, outputs: dict[str, str]) -> None:
    with pytest.raises(DataError, match=r"needs the field \w+; the values given are for"):
        render_completion(layout, QA, outputs)
