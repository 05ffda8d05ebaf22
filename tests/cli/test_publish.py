"""`promptopt publish`: a dry run by default, private by default, the token nowhere but in the request."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub.constants
import pytest

from promptopt.cli import main as cli
from promptopt.pipeline.weights import ExportedModels
from promptopt.records import GgufModel, ParityReport, Quantization
from promptopt.rundir import RunDir, write_json, write_text
from tests.deploy.hub_double import TOKEN, Hub, running

# huggingface_hub 1.33 hands httpx its files in a way that httpx no longer likes.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

PARITY = ParityReport(
    prompts=1, token_ids_equal=1, greedy_prompts=1, greedy_equal=1, mean_agreed_tokens=1.0, max_new_tokens=1,
    quantization="f16",
)  # fmt: skip
KINDS: tuple[Quantization, ...] = ("f16", "q8_0", "q4_k_m")
NAMES = ["Modelfile", "README.md", "lora.gguf", "lora/adapter_config.json", "lora/adapter_model.safetensors",
         "tuned-q4_k_m.gguf", "tuned-q8_0.gguf"]  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run, as the pipeline's own stages write it, with files that are small."""
    folder = RunDir(tmp_path / "runs" / "support")
    stages = {"export": folder.stage("export", {"settings": 1, "after": {}})}
    for name, earlier in (("evaluate", "export"), ("report", "evaluate")):
        stages[name] = folder.stage(name, {"settings": 1, "after": {earlier: stages[earlier].inputs}})
    exported = stages["export"].path
    for kind in KINDS:
        (exported / f"tuned-{kind}.gguf").write_bytes(kind.encode() * 1000)
    (exported / "lora.gguf").write_bytes(b"lora")
    for path, text in (
        (exported / "Modelfile", "FROM ./tuned-q8_0.gguf\n"),
        (exported / "lora" / "adapter_config.json", "{}\n"),
        (exported / "lora" / "adapter_model.safetensors", "weights"),
        (exported / "merged" / "model.safetensors", "merged weights"),
        (stages["report"].path / "model_card.md", "---\nlicense: unknown\n---\n\n# support\n"),
        (folder.path / "experiment.json", "{}\n"),
    ):
        write_text(path, text)
    ggufs = tuple(GgufModel(path=f"tuned-{kind}.gguf", quantization=kind, sha256="0", size_bytes=1) for kind in KINDS)
    write_json(exported / "models.json", ExportedModels(ggufs=ggufs, deployed="tuned-q8_0.gguf", parity=PARITY))
    for stage in stages.values():
        stage.finish()
    return folder.path


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with running() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        # Xet, the Hub's own way for large files, speaks to servers that no double stands for; LFS is the other way.
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
        yield hub


def test_a_dry_run_says_what_it_would_do_and_asks_nobody(
    run: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    assert cli.main(["publish", str(run), "--repo", "me/support"]) == 0
    out = capsys.readouterr().out
    assert [line.split()[-1] for line in out.splitlines()[:7]] == sorted(NAMES, key=lambda name: out.index(f"  {name}"))
    assert {line.split()[-1] for line in out.splitlines()[:7]} == set(NAMES)
    assert "6.0 kB  tuned-q4_k_m.gguf" in out
    assert "in 7 files to me/support (private)" in out
    assert "Nothing was uploaded" in out
    assert hub.calls == []


def test_really_uploads_privately_in_one_commit(
    run: Path, hub: Hub, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        assert cli.main(["publish", str(run), "--repo", "me/support", "--really"]) == 0
    assert hub.repositories == {"me/support": True}
    assert sorted(hub.files) == NAMES
    assert hub.files["tuned-q8_0.gguf"] == b"q8_0" * 1000
    assert hub.files["README.md"].startswith(b"---\nlicense: unknown")
    assert sum(call.endswith("/commit/main") for call in hub.calls) == 1
    said = capsys.readouterr()
    assert f"Uploaded: {hub.url}/me/support/commit/abc" in said.out
    assert TOKEN not in said.out + said.err + caplog.text
    # A second time the repository is there, and is private: taken as it is.
    assert cli.main(["publish", str(run), "--repo", "me/support", "--really", "--full"]) == 0
    assert sorted(set(hub.files) - set(NAMES)) == ["merged/model.safetensors", "tuned-f16.gguf"]


def test_a_public_repository_is_not_filled_by_accident(run: Path, hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    hub.repositories["me/open"] = False
    assert cli.main(["publish", str(run), "--repo", "me/open", "--really"]) == 2
    assert "is public, and nothing was uploaded" in capsys.readouterr().err
    assert not hub.files
    assert cli.main(["publish", str(run), "--repo", "me/open", "--really", "--public"]) == 0
    assert hub.files


@pytest.mark.parametrize(
    ("allows", "said"),
    [({}, "does not know the token in HF_TOKEN (401)"), ({TOKEN: "read"}, "may not write to me/support (403)")],
)
def test_a_refused_token(
    run: Path, hub: Hub, capsys: pytest.CaptureFixture[str], allows: dict[str, str], said: str
) -> None:
    hub.allows = allows
    assert cli.main(["publish", str(run), "--repo", "me/support", "--really"]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert TOKEN not in err
    assert err.count("\n") == 1


def test_an_upload_that_breaks_off_shows_nothing_and_goes_on(
    run: Path, hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.full = True
    assert cli.main(["publish", str(run), "--repo", "me/support", "--really"]) == 2
    assert "broke off" in capsys.readouterr().err
    assert not hub.files
    hub.full = False
    assert cli.main(["publish", str(run), "--repo", "me/support", "--really"]) == 0
    assert sorted(hub.files) == NAMES


def test_what_is_missing_is_said_before_anybody_is_asked(
    run: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def fails(*arguments: str) -> str:
        assert cli.main(["publish", *arguments]) == 2
        return capsys.readouterr().err

    assert "names no repository" in fails(str(run), "--repo", "support")
    assert "is no run" in fails(str(tmp_path), "--repo", "me/support")
    smoke = Path(__file__).parents[2] / "experiments" / "demo" / "smoke.yaml"
    monkeypatch.chdir(tmp_path)
    assert "'export' has not finished in runs/demo-smoke" in fails(str(smoke), "--repo", "me/support")
    assert "no experiment file" in fails(str(tmp_path / "none.yaml"), "--repo", "me/support")
    monkeypatch.delenv("HF_TOKEN")
    assert "HF_TOKEN is not set" in fails(str(run), "--repo", "me/support", "--really")
    inputs = json.loads((run / "evaluate" / "inputs.json").read_text())
    inputs["of"]["after"]["export"] = "another"
    write_json(run / "evaluate" / "inputs.json", inputs)
    assert "made from another 'export'" in fails(str(run), "--repo", "me/support")
    (run / "report" / "stage.json").unlink()
    assert "'report' has not finished" in fails(str(run), "--repo", "me/support")
    assert hub.calls == []


def test_a_hub_that_is_not_there(
    run: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    assert cli.main(["publish", str(run), "--repo", "me/support", "--really"]) == 2
    assert "http://127.0.0.1:1 cannot be reached" in capsys.readouterr().err
