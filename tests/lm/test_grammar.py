"""llama.cpp's own verdict: it compiles every grammar there is, and accepts what the tests' own reader accepts."""

import ctypes
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dspy
import jsonschema
import pytest

from promptopt.errors import ConfigError
from promptopt.layout.dspy_adapter import grammar_of
from promptopt.layout.grammar import answer_grammar
from promptopt.layout.render import prefill_text, render_completion
from promptopt.layout.signature import with_reasoning
from promptopt.layout.spec import Layout
from promptopt.lm.llama_cpp import native
from promptopt.lm.llama_cpp.grammar import (
    JSON_OBJECT_GBNF,
    check_grammar,
    gbnf_of_json_schema,
    gbnf_of_response_format,
)
from tests.contracts.test_layouts import SIGNATURES
from tests.layout.gbnf.test_json_schema import SCHEMAS
from tests.layout.gbnf_sampler import Gbnf, samples
from tests.layout.test_constrained import ANNOTATIONS, STYLES, signature


class Vocabulary:
    """The real tokenizer and grammar sampler, without weights."""

    def __init__(self, path: Path) -> None:
        self.lib: Any = native.library()
        params = self.lib.llama_model_default_params()
        params.vocab_only = True
        self.model = self.lib.llama_model_load_from_file(str(path).encode(), params)
        self.raw = self.lib.llama_model_get_vocab(self.model)

    def accepts(self, grammar: str, text: str) -> bool:
        """Whether a model could write `text`, token by token, and then end its turn."""
        sampler = self.lib.llama_sampler_init_grammar(self.raw, grammar.encode(), b"root")
        assert sampler
        try:
            for token in native.tokenize(self.lib, self.raw, text, special=False):
                if not self._allows(sampler, token):
                    return False
                self.lib.llama_sampler_accept(sampler, token)
            return self._allows(sampler, self.lib.llama_vocab_eos(self.raw))
        finally:
            self.lib.llama_sampler_free(sampler)

    def _allows(self, sampler: Any, token: int) -> bool:
        data = (self.lib.llama_token_data * 1)(self.lib.llama_token_data(token, 0.0, 0.0))
        array = self.lib.llama_token_data_array(data, 1, -1, False)
        self.lib.llama_sampler_apply(sampler, ctypes.byref(array))
        return bool(data[0].logit > float("-inf"))

    def close(self) -> None:
        self.lib.llama_model_free(self.model)


@pytest.fixture(scope="module")
def vocabulary(gguf_path: Path) -> Iterator[Vocabulary]:
    found = Vocabulary(gguf_path)
    yield found
    found.close()


def spoilt(text: str, rng: random.Random) -> str:
    """Return `text` with something cut out, put in, or doubled."""
    at, to = sorted(rng.randint(0, len(text)) for _ in range(2))
    return rng.choice((text[:at] + text[to:], text[:to] + text[at:], text[:at] + rng.choice('"\n <{a') + text[at:]))


def test_layout_grammars_are_llama_cpps(vocabulary: Vocabulary) -> None:
    rng = random.Random(0)
    refused = 0
    for spec in SIGNATURES:
        for style in STYLES:
            for number in range(4):
                layout = Layout(output_style=style, prefill=number % 2 == 1, reasoning=number > 1)
                grammar = answer_grammar(layout, spec)
                check_grammar(grammar)
                parsed = Gbnf(grammar)
                outputs = {field.name: "東京 <a" for field in with_reasoning(layout, spec).outputs}
                rendered = render_completion(layout, spec, outputs).removeprefix(prefill_text(layout, spec))
                assert vocabulary.accepts(grammar, rendered)
                for text in samples(grammar, 3, seed=number):
                    assert vocabulary.accepts(grammar, text), text
                    other = spoilt(text, rng)
                    assert vocabulary.accepts(grammar, other) == parsed.accepts(other), other
                    refused += not parsed.accepts(other)
    assert refused > 50


@pytest.mark.parametrize("name", ANNOTATIONS)
def test_typed_grammars_are_llama_cpps(vocabulary: Vocabulary, name: str) -> None:
    for style in STYLES:
        grammar = grammar_of(Layout(output_style=style), signature(ANNOTATIONS[name]))
        check_grammar(grammar)
        for text in samples(grammar, 2):
            assert vocabulary.accepts(grammar, text), text


@pytest.mark.parametrize("name", SCHEMAS)
def test_schema_grammars_are_llama_cpps(vocabulary: Vocabulary, name: str) -> None:
    rng = random.Random(0)
    schema = SCHEMAS[name]
    grammar = gbnf_of_json_schema(schema)
    check_grammar(grammar)
    parsed = Gbnf(grammar)
    for text in samples(grammar, 5):
        assert vocabulary.accepts(grammar, text), text
        jsonschema.validate(json.loads(text), schema)
        other = spoilt(text, rng)
        assert vocabulary.accepts(grammar, other) == parsed.accepts(other), other


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "maxLength": 1000},
        {"type": "string", "pattern": "^[a-z ]{1,1000}$"},
        {"type": "array", "maxItems": 1000, "items": {"type": "object", "properties": {"a": {"type": "number"}}}},
    ],
)
def test_the_largest_counts_compile(schema: dict[str, Any]) -> None:
    check_grammar(gbnf_of_json_schema(schema))


def test_any_json_object(vocabulary: Vocabulary) -> None:
    check_grammar(JSON_OBJECT_GBNF)
    for text in samples(JSON_OBJECT_GBNF, 20):
        assert isinstance(json.loads(text), dict)
    assert vocabulary.accepts(
        JSON_OBJECT_GBNF, json.dumps({"a": [1, {"ü": None}], "b": {}}, indent=4, ensure_ascii=False)
    )
    assert not vocabulary.accepts(JSON_OBJECT_GBNF, "[1]")
    assert not vocabulary.accepts(JSON_OBJECT_GBNF, "{} ")


def test_response_formats() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    assert gbnf_of_response_format({"type": "text"}) is None
    assert gbnf_of_response_format({"type": "json_object"}) == JSON_OBJECT_GBNF
    named = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": True}}
    assert gbnf_of_response_format(named) == gbnf_of_json_schema(schema)
    assert gbnf_of_response_format({"type": "json_schema", "schema": schema}) == gbnf_of_json_schema(schema)


@pytest.mark.parametrize(
    ("response_format", "message"),
    [
        ({"type": "xml"}, "has the type 'xml'; allowed are text, json_object, json_schema"),
        ({}, "has the type None"),
        ({"type": "json_schema"}, "has the schema None"),
        ({"type": "json_schema", "json_schema": {"schema": [1]}}, r"has the schema \[1\]"),
        ({"type": "json_schema", "json_schema": {"schema": {"not": {}}}}, "holds not"),
    ],
)
def test_wrong_response_formats_are_refused(response_format: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        gbnf_of_response_format(response_format)


@pytest.mark.parametrize(
    ("grammar", "message"),
    [
        ("root ::= other", "Undefined rule identifier 'other'"),
        ("root ::= [a", "unexpected end of input"),
        ('other ::= "a"', "does not contain a 'root' symbol"),
        ('root ::= root "a" | "b"', "left recursion"),
        ('root ::= "\\q"', "unknown escape"),
        (" ", "is empty"),
        ('root ::= "a\x00b"', "NUL"),
        ('root ::= "\ud83d"', "half a surrogate pair"),
    ],
)
def test_grammars_that_llama_cpp_refuses(grammar: str, message: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match=message):
        check_grammar(grammar)
    assert capfd.readouterr().err == ""


def test_grammars_that_name_tokens_are_left_to_their_model() -> None:
    check_grammar('root ::= <think> "a"')


def test_a_model_answers_in_its_grammar(lm: dspy.LM) -> None:
    if "grammar" not in lm.supported_params:
        pytest.skip("this engine does not take grammars")
    grammar = gbnf_of_json_schema({"enum": ["Tokyo", 42]})
    assert lm("What is the capital of Japan?", grammar=grammar)[0] in ('"Tokyo"', "42")
