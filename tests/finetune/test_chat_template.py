"""A tokenizer without a chat template gets one explicitly, in a folder that training and export read alike."""

import json
from pathlib import Path

import pytest

from promptopt.errors import ConfigError, TrainingError
from promptopt.finetune.base_folder import check_base_folder, end_token_ids, folder_hash
from promptopt.finetune.base_model import load_tokenizer
from promptopt.finetune.chat_template import with_chat_template
from promptopt.finetune.rows import tokenize_rows
from tests.finetune.tiny_models import CHATML, make_base, make_rows, make_tokenizer


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A model without chat template, which ends with another token than ChatML's."""
    folder = make_base(tmp_path / "bare")
    tokenizer = make_tokenizer(None)
    tokenizer.eos_token = "<|endoftext|>"
    (folder / "chat_template.jinja").unlink()
    tokenizer.save_pretrained(folder)
    generation = folder / "generation_config.json"
    generation.write_text(json.dumps({**json.loads(generation.read_text()), "eos_token_id": tokenizer.eos_token_id}))
    return folder


def test_a_tokenizer_without_chat_template_is_refused(bare: Path) -> None:
    with pytest.raises(TrainingError, match=r"model\.chat_template: chatml"):
        tokenize_rows(make_rows(1, 0), load_tokenizer(bare), 256, 0)


@pytest.mark.parametrize(("template", "end"), [("chatml", "<|im_end|>"), ("zephyr", "<|endoftext|>")])
def test_a_built_in_template_trains_its_end_of_turn(bare: Path, tmp_path: Path, template: str, end: str) -> None:
    before = {path.name: path.read_bytes() for path in bare.iterdir()}
    folder = with_chat_template(bare, template, tmp_path / "given")
    check_base_folder(folder)
    assert folder_hash(folder) != folder_hash(bare)
    assert (folder / "model.safetensors").is_symlink()
    tokenizer = load_tokenizer(folder)
    ends = end_token_ids(folder, tokenizer.eos_token_id)
    (row,) = tokenize_rows(make_rows(1, 0), tokenizer, 256, 0, ends).rows
    assert tokenizer.convert_ids_to_tokens(row.input_ids[-1]) == end
    assert {path.name: path.read_bytes() for path in bare.iterdir()} == before
    again = with_chat_template(bare, template, folder)
    assert folder_hash(again) == folder_hash(folder)


def test_a_file_and_what_is_wrong_with_one(bare: Path, tmp_path: Path) -> None:
    path = tmp_path / "own.jinja"
    path.write_text(CHATML.replace("<|im_end|>", "{{ eos_token }}"))
    tokenizer = load_tokenizer(with_chat_template(bare, str(path), tmp_path / "given"))
    (row,) = tokenize_rows(make_rows(1, 0), tokenizer, 256, 0).rows
    assert row.input_ids[-1] == tokenizer.eos_token_id
    path.write_text("{% for x in")
    with pytest.raises(ConfigError, match="no Jinja template: line 1"):
        with_chat_template(bare, str(path), tmp_path / "given")
    with pytest.raises(ConfigError, match=r"neither one of \['chatml', 'zephyr'\]"):
        with_chat_template(bare, "chatmul", tmp_path / "given")


def test_chatml_without_its_tokens_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "tokenizer.json").write_text('{"model": {"vocab": {"a": 0}}, "added_tokens": []}')
    with pytest.raises(ConfigError, match=r"needs the token '<\|im_start\|>'.*zephyr"):
        with_chat_template(folder, "chatml", tmp_path / "given")
    with pytest.raises(ConfigError, match="names none"):
        with_chat_template(folder, "zephyr", tmp_path / "given")
