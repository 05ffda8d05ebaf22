"""What lies beside the GGUFs: LoRA weights without this machine's paths, and a merged folder that can go."""

import json
from pathlib import Path

import pytest

from promptopt.export.merge import RECORD_NAME
from promptopt.pipeline.deployables import _copy_lora, drop_merged_weights
from promptopt.pipeline.reporting import stated_licence


def test_lora_weights_do_not_name_this_machine(tmp_path: Path) -> None:
    source = tmp_path / "lora"
    source.mkdir()
    (source / "adapter_config.json").write_text('{"r": 4, "base_model_name_or_path": "/models/me/base"}')
    (source / "adapter_model.safetensors").write_bytes(b"weights")
    _copy_lora(source, tmp_path / "out", "base")
    _copy_lora(source, tmp_path / "out", "base")
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert config == {"r": 4, "base_model_name_or_path": "base"}
    assert (tmp_path / "out" / "adapter_model.safetensors").read_bytes() == b"weights"


@pytest.mark.parametrize("names", [["model.safetensors"], ["model-1.safetensors", "model.safetensors.index.json"]])
def test_merged_weights_go_and_the_tokenizer_stays(tmp_path: Path, names: list[str]) -> None:
    for name in [*names, "tokenizer.json", "config.json", RECORD_NAME]:
        (tmp_path / name).write_text("{}")
    drop_merged_weights(tmp_path)
    # Without its record, a folder is merged again by the next run rather than taken for whole.
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "tokenizer.json"]


@pytest.mark.parametrize(
    ("readme", "licence"),
    [
        ("---\nlicense: apache-2.0\ntags: [a]\n---\n# Model\n", "apache-2.0"),
        ("# Model\n", None),
        ("---\nlicense: [a, b]\n---\n", None),
        ("---\nlicense: x: y\n---\n", None),
        ("---\n", None),
    ],
)
def test_a_licence_is_taken_from_the_bases_own_card(tmp_path: Path, readme: str, licence: str | None) -> None:
    assert stated_licence(tmp_path) is None
    (tmp_path / "README.md").write_text(readme)
    assert stated_licence(tmp_path) == licence
