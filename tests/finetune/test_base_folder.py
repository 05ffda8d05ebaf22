"""An incomplete model folder is named before anything is loaded."""

import json
import shutil
from pathlib import Path

import pytest

from promptopt.errors import ModelError
from promptopt.finetune.base_folder import check_base_folder, end_token_ids, folder_hash


@pytest.fixture
def copy(base_dir: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(base_dir, tmp_path / "model"))


def test_a_whole_folder_passes_and_its_hash_is_stable(base_dir: Path, copy: Path) -> None:
    check_base_folder(base_dir)
    assert folder_hash(copy) == folder_hash(base_dir)
    (copy / "tokenizer_config.json").write_text("{}", encoding="utf-8")
    assert folder_hash(copy) != folder_hash(base_dir)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_missing_file_is_named(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(ModelError, match=name.split(".")[0]):
        check_base_folder(copy)


def test_truncated_weights_are_refused(copy: Path) -> None:
    weights = copy / "model.safetensors"
    whole = weights.read_bytes()
    for size in (len(whole) - 1, 20, 0):
        weights.write_bytes(whole[:size])
        with pytest.raises(ModelError, match="truncated"):
            check_base_folder(copy)


def test_a_missing_shard_a_broken_config_and_a_missing_folder_are_named(copy: Path) -> None:
    index = {"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}
    (copy / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    with pytest.raises(ModelError, match=r"model-2\.safetensors is missing"):
        check_base_folder(copy)
    (copy / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(ModelError, match=r"config\.json cannot be read"):
        check_base_folder(copy)
    with pytest.raises(ModelError, match="does not exist"):
        check_base_folder(copy / "none")


def test_every_end_token_counts(copy: Path) -> None:
    (copy / "generation_config.json").write_text('{"eos_token_id": [5, 6]}', encoding="utf-8")
    assert end_token_ids(copy, 2) == {2, 5, 6}
    (copy / "generation_config.json").unlink()
    assert end_token_ids(copy, None) == frozenset()
