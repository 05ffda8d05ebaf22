"""`promptopt plan`: estimates from files alone, for a card or this machine, and what to change."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from promptopt.cli import main as cli
from tests.cli.test_bad_input import EXPERIMENT, ROWS

pytest.importorskip("tokenizers")


@pytest.fixture
def experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "rows.jsonl").write_text(ROWS)
    path = tmp_path / "experiment.yaml"
    path.write_text(yaml.safe_dump(EXPERIMENT))
    return path


def test_a_plan_for_a_card_loads_nothing_and_leaves_nothing(experiment: Path) -> None:
    code = (
        "import sys; from promptopt.cli.main import main; "
        f"code = main(['plan', {str(experiment)!r}, '--gpu', 'RTX 3060', '--rows', '5000']); "
        "print('heavy:', sorted({'torch', 'transformers', 'llama_cpp'} & set(sys.modules))); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120, cwd=experiment.parent
    )
    assert done.returncode == 0, done.stderr
    assert "RTX 3060 12GB (12.00 GiB)" in done.stdout
    assert "5,000 rows" in done.stdout
    assert "It fits" in done.stdout
    assert "epochs: 2 (5,000 rows" in done.stdout
    assert "heavy: []" in done.stdout
    assert not (experiment.parent / "runs").exists()


def test_what_does_not_fit_comes_with_changes(
    experiment: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    finetune = {"batch_size": 256, "max_length": 2048, "gradient_checkpointing": False}
    experiment.write_text(yaml.safe_dump({**EXPERIMENT, "finetune": finetune}))
    from promptopt.finetune import this_machine

    monkeypatch.setattr(this_machine, "machine_memory", lambda: 10**9)
    monkeypatch.setattr(this_machine, "_products_per_s", lambda: 1e11)
    assert cli.main(["plan", str(experiment), "--device", "cpu", "--rows", "500"]) == 0
    said = capsys.readouterr().out
    assert "It does NOT fit" in said
    assert "gradient_checkpointing: true" in said
    assert "batch_size: 1, gradient_accumulation: 256" in said
    assert "all of these" in said


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--gpu", "RTX 3090", "--device", "cpu"], "exclude each other"),
        (["--gpu", "Voodoo"], "not in the table; name one of"),
        (["--rows", "0"], "--rows is 0"),
    ],
)
def test_bad_arguments_are_refused_in_one_line(
    experiment: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], complaint: str
) -> None:
    assert cli.main(["plan", str(experiment), *arguments]) == 2
    message = capsys.readouterr().err
    assert complaint in message
    assert message.count("\n") == 1
