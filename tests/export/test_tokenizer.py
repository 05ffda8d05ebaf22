"""The embedded tokenizer: llama.cpp gives the ids that the Hugging Face tokenizer gives, on any text."""

import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import llama_cpp
import pytest
from gguf import GGUFReader
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from promptopt.errors import ExportError
from promptopt.export.convert import convert_to_gguf
from promptopt.export.gguf_tokenizer import TokenType
from promptopt.export.tokenizer import byte_symbols, read_tokenizer
from tests.export.llama_runner import Runner
from tests.export.tiny_models import (
    CHATML,
    TEXTS,
    chatml_tokenizer,
    edit_json,
    gemma_tokenizer,
    llama2_tokenizer,
    llama3_tokenizer,
    mistral_tokenizer,
    phi3_tokenizer,
    save_model,
)

KINDS = {
    "qwen2": "qwen2",
    "llama3": "llama-bpe",
    "llama3-merged": "smaug-bpe",
    "gpt2": "gpt-2",
    "smollm": "smollm",
    **dict.fromkeys(("llama2", "mistral", "gemma", "phi3"), "default"),
}
MADE = {
    "llama3": llama3_tokenizer,
    "llama2": llama2_tokenizer,
    "mistral": mistral_tokenizer,
    "gemma": gemma_tokenizer,
    "phi3": phi3_tokenizer,
}
# Letters newer than Python's own Unicode tables are letters to one side and unassigned to the other.
ASSIGNED = st.characters(exclude_categories=("Cs", "Cn"))
PIECES = st.one_of(
    st.text(ASSIGNED, max_size=6),
    st.text(st.characters(min_codepoint=0x3040, max_codepoint=0x9FFF, exclude_categories=("Cn",)), max_size=6),
    st.text("0123456789½²٣Ⅷ.,", max_size=8),
    st.text(" \n\r\t\x0b\x1c\u00a0\u0085\u2028\u3000\u200b", max_size=8),
    st.sampled_from(["'s", "'LL", "'ſ", "don't", " I'M", "[[ ## answer ## ]]", '{"a": 1}', "</answer>", *TEXTS]),
    st.sampled_from(["<|im_start|>", "<|im_end|>", "<|eot_id|>", "<|im_", "<think>", "<|endoftext|>\n"]),
)


class Pair:
    """One tokenizer on both sides."""

    def __init__(self, kind: str, folder: Path) -> None:
        made = MADE[kind]() if kind in MADE else chatml_tokenizer(kind)
        # Mistral's tokenizer puts a space before text that begins a prompt, and no prompt of its template does.
        self.start = "<s>" if kind == "mistral" else ""
        self.hf_dir = save_model(folder / "hf", "llama", made)
        self.gguf = Path(convert_to_gguf(self.hf_dir, folder / "model.gguf").path)
        self.hf = AutoTokenizer.from_pretrained(self.hf_dir)
        self.runner = Runner(self.gguf, vocab_only=True)


@pytest.fixture(scope="module", params=KINDS)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    made = Pair(request.param, tmp_path_factory.mktemp("pair"))
    with made.runner:
        yield made


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)
@given(pieces=st.lists(PIECES, max_size=6))
def test_ids_agree_on_any_text(pair: Pair, pieces: list[str]) -> None:
    text = pair.start + "".join(pieces)
    assert pair.runner.tokenize(text) == pair.hf.encode(text, add_special_tokens=False)


def test_ids_agree_on_plain_text_with_its_surroundings(pair: Pair) -> None:
    for text in TEXTS:
        ids, expected = pair.runner.tokenize(text, add_special=True), pair.hf(text)["input_ids"]
        if pair.start:
            # The known difference of tokenizers that put a space before the first text only: llama.cpp has no word for
            # it, and does what is right for chat prompts, which begin with a special token.
            assert ids[0] == expected[0] and pair.hf.decode(ids[1:]) == text.lstrip() and ids != expected
        else:
            assert ids == expected


def test_special_ids_and_end_tokens(pair: Pair) -> None:
    lib: Any = llama_cpp
    vocab = pair.runner.vocab
    assert lib.llama_vocab_eos(vocab) == lib.llama_vocab_eot(vocab) == pair.hf.eos_token_id
    assert bool(lib.llama_vocab_get_add_bos(vocab)) == (pair.hf("x")["input_ids"][0] == pair.hf.bos_token_id)
    if pair.hf.bos_token_id is not None:
        assert lib.llama_vocab_bos(vocab) == pair.hf.bos_token_id
    if pair.hf.pad_token_id is not None:
        assert lib.llama_vocab_pad(vocab) == pair.hf.pad_token_id
    ends = {token for token in range(len(pair.hf)) if lib.llama_vocab_is_eog(vocab, token)}
    assert ends == set(read_tokenizer(pair.hf_dir, len(pair.hf)).special.ends)


def test_names_of_the_pre_tokenizers(pair: Pair) -> None:
    assert read_tokenizer(pair.hf_dir, len(pair.hf)).pre_tokenizer in KINDS.values()


def test_token_types(llama_dir: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(llama_dir)
    found = read_tokenizer(llama_dir, len(tokenizer) + 2)
    kinds = dict(zip(found.tokens, found.types, strict=True))
    assert kinds["<|im_start|>"] is TokenType.CONTROL and kinds["<think>"] is TokenType.USER_DEFINED
    assert kinds[f"[PAD{len(tokenizer) + 1}]"] is TokenType.UNUSED and kinds["Ġ"] is TokenType.NORMAL
    assert found.chat_template == CHATML and not found.add_bos and not found.add_eos


def test_byte_symbols_are_those_of_the_tokenizers_library(llama_dir: Path) -> None:
    from tokenizers import pre_tokenizers

    assert sorted(byte_symbols()) == sorted(pre_tokenizers.ByteLevel.alphabet())
    assert byte_symbols()[32] == "Ġ" and byte_symbols()[10] == "Ċ" and byte_symbols()[65] == "A"


def test_text_that_is_not_composed_is_the_known_difference_of_nfc_tokenizers(tmp_path: Path) -> None:
    """Qwen2 composes characters first; llama.cpp does not. Composed text agrees; parity catches the rest."""
    from tokenizers import normalizers

    tokenizer = chatml_tokenizer()
    tokenizer.backend_tokenizer.normalizer = normalizers.NFC()
    hf_dir = save_model(tmp_path / "hf", "qwen2", tokenizer)
    with Runner(convert_to_gguf(hf_dir, tmp_path / "m.gguf").path, vocab_only=True) as runner:
        for text in TEXTS:
            assert unicodedata.is_normalized("NFC", text)
            assert runner.tokenize(text) == tokenizer.encode(text)
        decomposed = unicodedata.normalize("NFD", "Zürich")
        assert runner.tokenize(decomposed) != tokenizer.encode(decomposed)


def test_generation_config_adds_end_tokens(tmp_path: Path) -> None:
    tokenizer = chatml_tokenizer()
    hf_dir = save_model(tmp_path / "hf", "llama", tokenizer)
    own = tokenizer.convert_tokens_to_ids("<think>")
    edit_json(hf_dir / "generation_config.json", eos_token_id=[tokenizer.eos_token_id, own])
    with Runner(convert_to_gguf(hf_dir, tmp_path / "m.gguf").path, vocab_only=True) as runner:
        lib: Any = llama_cpp
        assert lib.llama_vocab_is_eog(runner.vocab, own) and lib.llama_vocab_eos(runner.vocab) == tokenizer.eos_token_id


def test_a_template_list_gives_the_default_one(llama_dir: Path, tmp_path: Path) -> None:
    hf_dir = save_model(tmp_path / "hf", "llama", chatml_tokenizer())
    (hf_dir / "chat_template.jinja").unlink()
    listed = [{"name": "rag", "template": "no"}, {"name": "default", "template": "yes"}]
    edit_json(hf_dir / "tokenizer_config.json", chat_template=listed)
    assert read_tokenizer(hf_dir, 400).chat_template == "yes"


def _unknown_regex(tokenizer: PreTrainedTokenizerFast) -> None:
    from tokenizers import Regex, pre_tokenizers

    parts = [pre_tokenizers.Split(Regex(r"\w+"), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(parts)


def _prefix_space(tokenizer: PreTrainedTokenizerFast) -> None:
    from tokenizers import pre_tokenizers

    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)


def _unigram(tokenizer: PreTrainedTokenizerFast) -> None:
    from tokenizers import models

    tokenizer.backend_tokenizer.model = models.Unigram([("<unk>", 0.0), ("a", -1.0)], unk_id=0)


def _no_byte_tokens(tokenizer: PreTrainedTokenizerFast) -> None:
    tokenizer.backend_tokenizer.model.byte_fallback = True


def _without_replace(tokenizer: PreTrainedTokenizerFast) -> None:
    """A splitter at spaces, though tokens reach across them."""
    from tokenizers import pre_tokenizers

    llama2 = llama2_tokenizer().backend_tokenizer
    tokenizer.backend_tokenizer.model = llama2.model
    tokenizer.backend_tokenizer.normalizer = None
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=True)


def _swallowing(tokenizer: PreTrainedTokenizerFast) -> None:
    from tokenizers import AddedToken

    made = llama2_tokenizer().backend_tokenizer
    made.post_processor = tokenizer.backend_tokenizer.post_processor
    tokenizer._tokenizer = made
    made.add_special_tokens([AddedToken("<|im_end|>", rstrip=True)])


def _lower_case(tokenizer: PreTrainedTokenizerFast) -> None:
    from tokenizers import normalizers

    tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()


def _stripping(tokenizer: PreTrainedTokenizerFast) -> None:
    from tokenizers import AddedToken

    tokenizer.add_tokens([AddedToken("<mask>", lstrip=True)])


def _no_end(tokenizer: PreTrainedTokenizerFast) -> None:
    tokenizer.eos_token = None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_unigram, "is a Unigram tokenizer; the export writes byte-level BPE"),
        (_no_byte_tokens, r"lacks 256 of the 256 byte symbols \(first: '<0x00>'\)"),
        (_without_replace, "changes text by the normalizer None and the pre-tokenizer .*Metaspace"),
        (_swallowing, r"tokens <\|im_end\|> in .* swallow the white space"),
        (_lower_case, "Lowercase.*allowed are NFC and none"),
        (_stripping, "'<mask>' .*has lstrip set"),
        (_no_end, "has no end token"),
    ],
)
def test_what_llama_cpp_would_read_differently_is_refused(change: Any, message: str, tmp_path: Path) -> None:
    tokenizer = chatml_tokenizer()
    change(tokenizer)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ExportError, match=message):
        read_tokenizer(tmp_path, 600)


def test_missing_tokenizer_and_missing_bytes(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"tokenizer\.json is missing"):
        read_tokenizer(tmp_path, 400)
    chatml_tokenizer().save_pretrained(tmp_path)
    import json

    found = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    found["model"]["vocab"]["nothing"] = found["model"]["vocab"].pop("Ġ")
    (tmp_path / "tokenizer.json").write_text(json.dumps(found), encoding="utf-8")
    with pytest.raises(ExportError, match="lacks 1 of the 256 byte symbols"):
        read_tokenizer(tmp_path, 400)


def test_ignored_merges_with_a_regex_that_llama_cpp_has_only_with_merges(tmp_path: Path) -> None:
    tokenizer = chatml_tokenizer()
    tokenizer.backend_tokenizer.model.ignore_merges = True
    tokenizer.save_pretrained(tmp_path)
    assert read_tokenizer(tmp_path, 400).pre_tokenizer is None


@pytest.mark.parametrize("change", [_unknown_regex, _prefix_space])
def test_an_unknown_pre_tokenizer_is_not_guessed_but_can_be_named(change: Any, tmp_path: Path) -> None:
    tokenizer = chatml_tokenizer()
    change(tokenizer)
    hf_dir = save_model(tmp_path / "hf", "llama", tokenizer)
    assert read_tokenizer(hf_dir, 400).pre_tokenizer is None
    made = convert_to_gguf(hf_dir, tmp_path / "m.gguf", pre_tokenizer="gpt-2")
    assert GGUFReader(made.path).fields["tokenizer.ggml.pre"].contents() == "gpt-2"


def test_llama_cpps_converter_is_asked_about_an_unknown_pre_tokenizer(tmp_path: Path) -> None:
    """It recognises tokenizers by what they make of one text, and does not know this one either."""
    tokenizer = chatml_tokenizer()
    _unknown_regex(tokenizer)
    hf_dir = save_model(tmp_path / "hf", "qwen2", tokenizer)
    with pytest.raises(ExportError, match=r"w\+.*Known here are: Qwen2: .*Llama 3: .*GPT-2: .*pre_tokenizer=NAME"):
        convert_to_gguf(hf_dir, tmp_path / "m.gguf")
    assert [file.name for file in tmp_path.iterdir()] == ["hf"]
