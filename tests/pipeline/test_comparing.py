"""`promptopt compare` on the starter model in two quantizations: real engines, kept records, the prompt of each."""

import json
from pathlib import Path

import pytest
import yaml

from promptopt.candidate import Candidate
from promptopt.cli import main as cli
from promptopt.config.experiment import ExperimentConfig
from promptopt.config.load import load_experiment
from promptopt.errors import ConfigError, ModelError, StageError
from promptopt.evaluation.model_table import ModelComparison
from promptopt.export.convert import convert_to_gguf
from promptopt.layout.spec import Layout
from promptopt.pipeline.comparing import compare_models
from promptopt.pipeline.models import starter_gguf
from promptopt.pipeline.openings import read_openings
from promptopt.records import ExampleRecord
from promptopt.rundir import read_json, read_jsonl
from promptopt.starter.locate import starter_dir

REPOSITORY = Path(__file__).parents[2]
ROWS = 6
XML = Layout(output_style="xml", field_style="xml")


@pytest.fixture
def config(tmp_path: Path) -> ExperimentConfig:
    config = load_experiment(REPOSITORY / "experiments" / "demo" / "smoke.yaml")
    lm = config.lm.model_copy(update={"n_threads": 1})
    return config.model_copy(update={"run_dir": str(tmp_path / "run"), "lm": lm})


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The starter model as q8_0, and as f16 with a candidate in its metadata."""
    config = load_experiment(REPOSITORY / "experiments" / "demo" / "smoke.yaml")
    candidate = candidate_of(XML)
    f16 = tmp_path_factory.mktemp("models") / "carrying-f16.gguf"
    metadata = {"promptopt.candidate": candidate.model_dump_json(), "promptopt.program": config.program}
    convert_to_gguf(starter_dir(), f16, outtype="f16", metadata=metadata)
    return [starter_gguf(), f16]


def candidate_of(layout: Layout) -> Candidate:
    from programs.document_qa import answer_from_document

    return Candidate.of_program(answer_from_document(), layout)


def compared(folder: Path) -> ModelComparison:
    return read_json(folder / "compare.json", ModelComparison)


def test_each_model_is_measured_with_its_own_prompt_and_a_killed_comparison_goes_on(
    config: ExperimentConfig, models: list[Path]
) -> None:
    folder = compare_models(config, models, limit=ROWS)
    first, second = compared(folder).models
    assert (first.prompt, second.prompt) == ("plain, in the start layout", "in the GGUF")
    assert (first.quantization, second.quantization) == ("q8_0", "f16")
    assert (first.difference, second.difference is not None) == (None, True)
    assert [model.summary.n for model in (first, second)] == [ROWS, ROWS]
    assert first.size_bytes == models[0].stat().st_size < second.size_bytes
    assert all(model.tokens_per_s and model.tokens_per_s > 1 for model in (first, second))
    # At least the weights were in memory, and no second model.
    assert all(model.size_bytes < (model.peak_memory_bytes or 0) < 2e9 for model in (first, second))
    written = (folder / "compare.md").read_text(encoding="utf-8")
    assert "carrying-f16.gguf" in written
    assert "test examples" not in written
    assert read_openings(folder.parent) == []

    stores = sorted(folder.glob("*.jsonl"))  # the second model's first
    whole = [store.read_bytes() for store in stores]
    answers = [record.completion for record in read_jsonl(stores[0], ExampleRecord)]
    assert len(stores) == len(models)
    assert len(answers) == ROWS
    # As a kill leaves it: two records, a torn third.
    stores[0].write_bytes(b"".join(whole[0].splitlines(keepends=True)[:2]) + b'{"example_id": "to')
    compare_models(config, models, limit=ROWS)
    again = stores[0].read_bytes()
    assert again.splitlines()[:2] == whole[0].splitlines()[:2]
    assert [record.completion for record in read_jsonl(stores[0], ExampleRecord)] == answers
    assert stores[1].read_bytes() == whole[1]
    # Speed and memory of the model that was not asked again are those of its measurement.
    assert compared(folder).models[0] == first


def test_a_finished_model_is_not_even_loaded(
    config: ExperimentConfig, models: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = compare_models(config, models[:1], limit=2)
    before = compared(folder).models
    monkeypatch.setattr("promptopt.pipeline.context.LlamaCpp", None)
    assert compared(compare_models(config, models[:1], limit=2)).models == before
    with pytest.raises(TypeError):
        compare_models(config, models[:1], limit=3)


def test_the_test_split_must_be_asked_for_and_is_noted(config: ExperimentConfig, models: list[Path]) -> None:
    folder = compare_models(config, models[:1], "test", limit=2)
    compare_models(config, models[:1], "test", limit=2)
    assert len(read_openings(folder.parent)) == 1
    with pytest.raises(StageError, match="--open-test-again"):
        compare_models(config, models, "test", limit=2)
    compare_models(config, models, "test", limit=2, open_test_again="two models now")
    assert read_openings(folder.parent)[1].reason == "two models now"
    assert compared(folder).split == "test"
    assert "These are test examples" in (folder / "compare.md").read_text(encoding="utf-8")


def test_the_command_line_prints_the_table_and_takes_candidates(
    tmp_path: Path, models: list[Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    smoke = yaml.safe_load((REPOSITORY / "experiments" / "demo" / "smoke.yaml").read_text(encoding="utf-8"))
    smoke["lm"]["n_threads"] = 1
    (tmp_path / "experiment.yaml").write_text(yaml.safe_dump(smoke))
    candidate_of(XML).save(tmp_path / "xml.json")
    command = ["compare", str(tmp_path / "experiment.yaml"), "--run-dir", str(tmp_path / "run"), "--limit", "2"]
    named = [*command, "--models", *map(str, models)]
    assert cli.main([*named, "--candidate", f"{models[0].stem}={tmp_path / 'xml.json'}"]) == 0
    printed = capsys.readouterr().out
    assert "carrying-f16.gguf (f16)" in printed
    assert "given (xml.json)" in printed
    assert json.loads((tmp_path / "run" / "compare" / "compare.json").read_text())["rows"] == 2
    assert cli.main([*named, "--candidate", f"other={tmp_path / 'xml.json'}"]) == 2
    assert "candidate for 'other', and no such model" in capsys.readouterr().err
    assert cli.main([*named, "--candidate", "xml.json"]) == 2
    assert "MODEL=FILE" in capsys.readouterr().err
    assert cli.main([*command, "--models", str(tmp_path / "none.gguf")]) == 2
    assert "There is no model file" in capsys.readouterr().err


def test_candidates_lie_beside_models_and_in_runs(config: ExperimentConfig, tmp_path: Path) -> None:
    from promptopt.pipeline.context import RunContext
    from promptopt.pipeline.known_prompts import known_prompt
    from promptopt.pipeline.progress import Silent
    from promptopt.pipeline.run import prepare_data
    from promptopt.rundir import RunDir

    run = tmp_path / "other-run"
    for place in (run / "export" / "tuned-q8_0.gguf", run / "loose" / "mine.gguf"):
        place.parent.mkdir(parents=True)
        place.symlink_to(starter_gguf()) if place.name == "mine.gguf" else place.write_bytes(
            starter_gguf().read_bytes()
        )
    (run / "experiment.json").write_text("{}")
    candidate_of(XML).save(run / "distill" / "student.json")
    candidate_of(XML).save(run / "loose" / "mine.candidate.json")
    context = RunContext(config, RunDir(tmp_path / "run"), Silent())
    prepare_data(context)
    sources = [known_prompt(context, path).source for path in sorted(run.rglob("*.gguf"))]
    assert sources == ["beside the GGUF (distill/student.json)", "beside the GGUF (loose/mine.candidate.json)"]
    assert known_prompt(context, starter_gguf()).source == "plain, in the start layout"


def test_wrong_models_are_refused_before_anything_runs(
    config: ExperimentConfig, models: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "text.gguf").write_text("no model at all")
    other = Candidate(layout=Layout(), predictors={})
    other.save(tmp_path / "other.json")
    with pytest.raises(ModelError, match="not a GGUF"):
        compare_models(config, [models[0], tmp_path / "text.gguf"])
    with pytest.raises(ConfigError, match="same file"):
        compare_models(config, [models[0], models[0]])
    with pytest.raises(ConfigError, match="limit is 0"):
        compare_models(config, models, limit=0)
    with pytest.raises(ConfigError, match="split is 'train'"):
        compare_models(config, models, "train")
    with pytest.raises(ConfigError, match="predictors"):
        compare_models(config, models, candidates={models[0].name: tmp_path / "other.json"})
    assert not list((tmp_path / "run").glob("compare/*"))
