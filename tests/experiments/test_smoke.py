"""Every experiment's whole road, as short as it can be; found by folder, so that none is forgotten."""

from pathlib import Path

import pytest

from promptopt.cli.validate import problems_of
from promptopt.config.load import load_experiment
from promptopt.errors import DataError
from promptopt.lm.gguf_info import read_gguf
from promptopt.pipeline.judgement import RoadResults
from promptopt.pipeline.run import ROAD, run_experiment
from promptopt.rundir import read_json

FOLDER = Path(__file__).parents[2] / "experiments"
SMOKES = sorted(FOLDER.glob("*/smoke.yaml"))
FILES = sorted(FOLDER.glob("*/*.yaml"))


def test_every_experiment_has_a_file_a_smoke_file_and_a_readme_and_none_was_missed() -> None:
    assert [path.parent.name for path in SMOKES] == ["demo", "document_qa", "viggo"]
    for path in SMOKES:
        assert (path.parent / "experiment.yaml").is_file()
        assert (path.parent / "README.md").is_file()


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_experiment_file_is_valid(path: Path) -> None:
    assert problems_of(path) == []


def test_no_experiment_file_was_missed() -> None:
    assert len(FILES) == 6


@pytest.mark.parametrize("path", SMOKES, ids=lambda path: path.parent.name)
def test_the_whole_road(path: Path, tmp_path: Path) -> None:
    config = load_experiment(path).model_copy(update={"run_dir": str(tmp_path / "run")})
    try:
        run = run_experiment(config)
    except DataError as error:
        if "PROMPTOPT_DATA" not in str(error):
            raise
        pytest.skip(str(error))
    results = read_json(run / "evaluate" / "results.json", RoadResults)
    assert [summary.name for summary in results.summaries] == ["base_plain", "base_best", "tuned_f16", "tuned_gguf"]
    assert all(summary.n == config.data.split.test for summary in results.summaries)
    assert results.parity is not None
    assert results.parity.token_ids_equal == results.parity.prompts == config.data.split.test
    assert all((run / plan.name / "stage.json").is_file() for plan in ROAD)
    report = (run / "report.md").read_text(encoding="utf-8")
    assert "fine-tuned GGUF" in report
    assert "What each quantization scores" in report
    deployed = read_gguf(run / "export" / f"tuned-{config.lm.quantization}.gguf")
    assert deployed.metadata["promptopt.experiment"] == config.name
