"""Experiment files: every problem at once, with what is allowed."""

from pathlib import Path

import pytest
import yaml

from promptopt.config.experiment import ExperimentConfig
from promptopt.config.load import import_object, load_experiment
from promptopt.errors import ConfigError

GOOD = {
    "name": "small",
    "program": "programs.document_qa:answer_from_document",
    "metric": "answer_f1",
    "model": {"kind": "starter"},
    "data": {
        "source": {"kind": "jsonl", "path": "rows.jsonl"},
        "fields": {"question": "q"},
        "inputs": ["question"],
        "split": {"train": 2, "val": 2, "test": 2},
    },
}


def _load(tmp_path: Path, **changes: object) -> ExperimentConfig:
    path = tmp_path / "experiment.yaml"
    path.write_text(yaml.safe_dump({**GOOD, **changes}))
    return load_experiment(path)


def test_a_good_file_gets_every_default(tmp_path: Path) -> None:
    config = _load(tmp_path)
    assert config.search.trials == 40
    assert config.finetune.base_quantization == "nf4"
    assert config.search.start.describe() == "dspy_chat"


def test_all_problems_come_in_one_message_with_the_nearest_key(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        _load(tmp_path, serach={"trials": 3}, finetune={"ranck": 3, "learning_rate": -1}, metric=None)
    message = str(caught.value)
    assert "Did you mean 'search'?" in message
    assert "finetune.ranck" in message
    assert "Did you mean 'rank'?" in message
    assert "finetune.learning_rate" in message
    assert "-1" in message
    assert "metric" in message


def test_a_misspelt_key_inside_a_union_names_the_keys_of_its_kind(tmp_path: Path) -> None:
    data = {**GOOD["data"], "source": {"kind": "jsonl", "pth": "x"}}  # type: ignore[dict-item]
    with pytest.raises(ConfigError, match="Did you mean 'path'"):
        _load(tmp_path, data=data)


def test_inputs_must_be_mapped(tmp_path: Path) -> None:
    data = {**GOOD["data"], "inputs": ["document"]}  # type: ignore[dict-item]
    with pytest.raises(ConfigError, match="document"):
        _load(tmp_path, data=data)


def test_a_layout_value_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="query_position"):
        _load(tmp_path, search={"layout": {"query_position": ["above"]}})


@pytest.mark.parametrize(
    ("text", "expected"),
    [("name: [", "not valid YAML"), ("- a\n- b\n", "must hold a mapping"), ("", "must hold a mapping")],
)
def test_files_that_are_no_experiments(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=expected):
        load_experiment(path)


def test_a_missing_and_a_binary_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no experiment file"):
        load_experiment(tmp_path / "none.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="UTF-8"):
        load_experiment(tmp_path / "binary.yaml")


@pytest.mark.parametrize(
    ("path", "expected"),
    [("json", "module:name"), ("no_such_module_at_all:x", "cannot be imported"), ("json:lods", "has no 'lods'")],
)
def test_import_paths_that_lead_nowhere(path: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        import_object(path, what="metric")


def test_an_import_path_leads_to_its_object() -> None:
    import json

    assert import_object("json:loads", what="function") is json.loads
