"""Ollama, told by our Modelfile, writes the prompt that was evaluated; or the Modelfile is refused, and says why."""

from collections.abc import Callable
from pathlib import Path

import dspy
import pytest

from promptopt.candidate import Candidate, PredictorPrompt
from promptopt.deploy.chat_format import reduce_template
from promptopt.deploy.gguf_programs import gguf_program
from promptopt.deploy.modelfile import go_template, modelfile, served_prompt
from promptopt.errors import ExportError
from promptopt.layout.presets import LAYOUTS
from promptopt.layout.spec import Layout
from promptopt.lm.gguf_info import GgufInfo
from promptopt.lm.gguf_program import GgufProgram
from promptopt.lm.llama_cpp.chat_template import ChatTemplate
from tests.deploy import ollama_double
from tests.deploy.conftest import SETTINGS
from tests.fixtures_gguf import TEMPLATES, hf_tokenizer

SPECIALS = {"bos_token": "<|begin|>", "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
QWEN25 = (
    "{%- if messages[0]['role'] == 'system' %}{{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}"
    "{%- else %}{{- '<|im_start|>system\\nYou are \"Qwen\"\\u3000— 助手.<|im_end|>\\n' }}{%- endif %}"
    "{%- for message in messages %}{%- if message.role != 'system' %}{{- '<|im_start|>' + message.role + '\\n' + "
    "message.content + '<|im_end|>' + '\\n' }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
QWEN3 = QWEN25.replace("<|im_start|>assistant\\n' }}", "<|im_start|>assistant\\n<think>\\n\\n</think>\\n\\n' }}")
PLAIN = {**TEMPLATES, "qwen25": QWEN25, "qwen3": QWEN3}
INSTRUCTIONS = "Answer from the \"document\".\n\nUse one word, 'as is'.\n"
DEMOS = (
    {"document": 'Anna said "Rome"', "question": "Where?", "answer": '"Rome"'},
    {"document": "Tom — 東京 {{ .Content }}", "question": "Where? ", "answer": "東京"},
)


def info(template: str, add_bos: bool = False) -> GgufInfo:
    return GgufInfo(
        path=Path("model.gguf"), architecture="llama", quantization="f16", n_params=1, n_ctx_train=512, size_bytes=1,
        chat_template=template, metadata={"tokenizer.ggml.add_bos_token": add_bos}, tensor_types={},
    )  # fmt: skip


def carried(layout: Layout, instructions: str = INSTRUCTIONS) -> GgufProgram:
    program = dspy.Predict("document, question -> answer")
    candidate = Candidate(layout=layout, predictors={"self": PredictorPrompt(instructions=instructions, demos=DEMOS)})
    return gguf_program(program, candidate, SETTINGS, path="a:b", experiment="tiny")


def transformers_prompt(template: str, messages: list[dict[str, str]], prefill: str) -> str:
    """Return the prompt as transformers writes it, which is what training and evaluation use."""
    text: str = hf_tokenizer(template).apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    return text + prefill


# Gemma refuses system messages, and this Mistral moves them into the last question.
@pytest.mark.parametrize("template", [name for name in PLAIN if name not in ("gemma", "mistral")])
@pytest.mark.parametrize("layout", ["dspy_chat", "label_query_last", "xml_query_last", "one_message"])
def test_the_prompt_is_the_one_that_was_evaluated(template: str, layout: str) -> None:
    served = served_prompt(carried(LAYOUTS[layout]))
    text = modelfile("model.gguf", info(PLAIN[template]), SPECIALS, carried(LAYOUTS[layout]), SETTINGS)
    model = ollama_double.parse(text)
    assert model.prompt([{"role": "user", "content": served.question}]) == transformers_prompt(
        PLAIN[template], served.messages, served.prefill
    )
    assert model.source == "./model.gguf"
    assert model.parameters == {
        "num_ctx": "1024", "num_predict": "8", "temperature": "0", "seed": "3", "repeat_penalty": "1", "top_k": "0",
        "top_p": "1", "stop": "<|im_end|>",
    }  # fmt: skip
    assert "#   " + served.question.splitlines()[0] in text


@pytest.mark.parametrize("template", ["gemma", "mistral"])
def test_a_template_without_a_system_role_takes_layouts_without_one(template: str) -> None:
    merged = carried(Layout(system_role="merged"))
    served = served_prompt(merged)
    model = ollama_double.parse(modelfile("m.gguf", info(TEMPLATES[template]), SPECIALS, merged, SETTINGS))
    assert model.system == ""
    assert len(model.messages) == 4
    assert model.prompt([{"role": "user", "content": served.question}]) == transformers_prompt(
        TEMPLATES[template], served.messages, served.prefill
    )
    with pytest.raises(ExportError, match=r"does not write system messages.*system_role: merged"):
        modelfile("m.gguf", info(TEMPLATES[template]), SPECIALS, carried(Layout()), SETTINGS)


@pytest.mark.parametrize("name", PLAIN)
def test_other_conversations_are_those_of_transformers_too(name: str) -> None:
    template = ChatTemplate(PLAIN[name], SPECIALS, model=name)
    go = go_template(reduce_template(template.render, template.source, []))
    talk = [
        {"role": "user", "content": 'one "{{ .Content }}" `x` \\n'},
        {"role": "assistant", "content": "two\n"},
        {"role": "user", "content": "three"},
    ]
    trimmed = "| trim" in PLAIN[name]
    for length in (1, 3):
        messages = [{**m, "content": m["content"].strip() if trimmed else m["content"]} for m in talk[:length]]
        assert ollama_double.render(go, messages, "") == transformers_prompt(PLAIN[name], messages, "")
    if name in ("chatml", "llama3", "qwen25"):
        guided = [{"role": "system", "content": "zero"}, *messages]
        assert ollama_double.render(go, guided, "zero") == transformers_prompt(PLAIN[name], guided, "")
        opened = [*messages, {"role": "assistant", "content": "be"}]
        assert ollama_double.render(go, opened, "") == transformers_prompt(PLAIN[name], messages, "be")


def test_the_token_that_ollama_adds_is_left_out() -> None:
    served = served_prompt(carried(Layout()))
    model = ollama_double.parse(
        modelfile("m.gguf", info(TEMPLATES["llama3"], add_bos=True), SPECIALS, carried(Layout()), SETTINGS)
    )
    prompt = model.prompt([{"role": "user", "content": served.question}])
    assert "<|begin|>" + prompt == transformers_prompt(TEMPLATES["llama3"], served.messages, "")
    with pytest.raises(ExportError, match=r"'<\|begin\|>' in front of every text"):
        modelfile("m.gguf", info(TEMPLATES["chatml"], add_bos=True), SPECIALS, carried(Layout()), SETTINGS)


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ strftime_now('%d %b') }}" + TEMPLATES["chatml"], "today's date"),
        ("{{ messages | length }}" + TEMPLATES["chatml"], "more than write texts"),
        (TEMPLATES["chatml"].replace("message['content']", "message['content'] | upper"), "in their order"),
        ("{{ raise_exception('no') }}", "refuses a single user message"),
        ("{% for m in messages | reverse %}{{ m.content }}{% endfor %}", "in their order"),
    ],
)
def test_a_template_that_cannot_be_reduced_is_refused(template: str, said: str) -> None:
    with pytest.raises(ExportError, match=said):
        modelfile("m.gguf", info(template), SPECIALS, carried(Layout()), SETTINGS)


@pytest.mark.parametrize(
    ("text", "said"), [('say """ok"""', '"""'), ("東京\u3000都", r"U\+3000"), ("a\u200db", "200D")]
)
def test_a_prompt_that_a_modelfile_cannot_hold_is_refused(text: str, said: str) -> None:
    with pytest.raises(ExportError, match=said):
        modelfile("m.gguf", info(TEMPLATES["chatml"]), SPECIALS, carried(Layout(), text), SETTINGS)


def test_a_grammar_that_ollama_does_not_have_is_said() -> None:
    text = modelfile("m.gguf", info(TEMPLATES["chatml"]), SPECIALS, carried(Layout(constrained=True)), SETTINGS)
    assert "constrained by a grammar, which a Modelfile cannot hold" in text
    plain = modelfile("m.gguf", info(TEMPLATES["chatml"]), SPECIALS, carried(Layout()), SETTINGS)
    assert ollama_double.parse(text) == ollama_double.parse(plain)


def test_several_predictors_have_no_modelfile(carrying: Callable[..., Path]) -> None:
    class Two(dspy.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = dspy.Predict("a -> b"), dspy.Predict("b -> c")

    two = gguf_program(Two(), Candidate.of_program(Two(), Layout()), SETTINGS, path="a:b", experiment="tiny")
    with pytest.raises(ExportError, match="one predictor: it has 2 predictors"):
        modelfile("m.gguf", info(TEMPLATES["chatml"]), SPECIALS, two, SETTINGS)
