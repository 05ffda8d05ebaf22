"""Chat templates render as transformers renders them."""

import itertools

import pytest

from promptopt.errors import ConfigError, ModelError, PromptRefusedError
from promptopt.lm.llama_cpp.chat_template import ChatTemplate
from tests.fixtures_gguf import TEMPLATES, hf_tokenizer

SPECIAL = {"bos_token": "<|begin|>", "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
EXTRA = {
    "date": "{{ strftime_now('%Y') }}{% for m in messages %}{% if loop.index > 2 %}{% break %}{% endif %}"
    "{{ m | tojson }}{% generation %}{{ m.content }}{% endgeneration %}\n{% endfor %}  \n  {% if true %}\nx{% endif %}",
    "undefined": "{{ nothing }}{{ unk_token }}{% if tools is none %}none{% endif %}{{ messages[-1].content }}",
    "namespace": "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}",
}
CONVERSATIONS = [
    [{"role": "user", "content": " Hello <b>&amp; 東京\n "}],
    [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "質問"}],
    [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "two"},
        {"role": "user", "content": "three\n\n"},
    ],
]


@pytest.mark.parametrize("name", [*TEMPLATES, *EXTRA])
def test_equals_transformers(name: str) -> None:
    source = {**TEMPLATES, **EXTRA}[name]
    ours, theirs = ChatTemplate(source, SPECIAL, model="m"), hf_tokenizer(source)
    compared = 0
    for messages in CONVERSATIONS:
        try:
            expected = theirs.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        except Exception:
            with pytest.raises(PromptRefusedError, match="refuses these messages"):
                ours.render(messages)
            continue
        assert ours.render(messages) == expected
        prefill = [*messages, {"role": "assistant", "content": " The answer: "}]
        assert ours.render(prefill) == expected + " The answer: "
        compared += 1
    assert compared >= 2


def test_refusals_are_explained() -> None:
    gemma = ChatTemplate(TEMPLATES["gemma"], SPECIAL, model="gemma.gguf")
    with pytest.raises(PromptRefusedError, match=r"not supported\. .* search\.start\.system_role: merged\)"):
        gemma.render(CONVERSATIONS[1])
    mistral = ChatTemplate(TEMPLATES["mistral"], SPECIAL, model="m")
    with pytest.raises(PromptRefusedError, match=r"alternate.* demo_placement: block"):
        mistral.render(list(itertools.chain(CONVERSATIONS[0], CONVERSATIONS[0])))
    with pytest.raises(ModelError, match="instruct version"):
        ChatTemplate(None, {}, model="base.gguf")
    with pytest.raises(ModelError, match="does not compile"):
        ChatTemplate("{% if %}", {}, model="m")


def test_templates_are_sandboxed() -> None:
    evil = ChatTemplate("{{ ''.__class__.__mro__[1].__subclasses__() }}", {}, model="m")
    with pytest.raises(ModelError, match="not safe to run") as caught:
        evil.render(CONVERSATIONS[0])
    assert not isinstance(caught.value, PromptRefusedError)


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [{"role": "user"}],
        [{"role": "user", "content": 3}],
        [{"role": "assistant", "content": "x"}],
        [{"role": "user", "content": "x", "name": "y"}],
    ],
)
def test_malformed_messages(messages: list[dict[str, str]]) -> None:
    with pytest.raises(ConfigError):
        ChatTemplate(TEMPLATES["chatml"], SPECIAL, model="m").render(messages)
