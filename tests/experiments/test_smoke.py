"""Every experiment's whole road, as short as it can be; found by folder, so that none is forgotten."""

from pathlib import Path

import pytest
from dspy.utils.exceptions import AdapterParseError

from promptopt.candidate import load_candidate
from promptopt.cli.validate import problems_of
from promptopt.config.experiment import ExperimentConfig
from promptopt.config.load import load_experiment
from promptopt.deploy.gguf_programs import is_its_predictor, load_gguf_program
from promptopt.errors import DataError
from promptopt.evaluation.evaluate import Evaluator
from promptopt.lm.gguf_info import read_gguf
from promptopt.metrics.registry import get_metric
from promptopt.pipeline.context import build_program
from promptopt.pipeline.judgement import RoadResults
from promptopt.pipeline.matrix import write_matrix
from promptopt.pipeline.openings import read_openings
from promptopt.pipeline.publishing import publishable
from promptopt.pipeline.run import ROAD, run_experiment
from promptopt.pipeline.weights import ExportedModels
from promptopt.records import DataRow, Outcome
from promptopt.rundir import read_json, read_jsonl

FOLDER = Path(__file__).parents[2] / "experiments"
SMOKES = sorted(FOLDER.glob("*/smoke.yaml"))
FILES = sorted(FOLDER.glob("*/*.yaml"))


def test_every_experiment_has_a_file_a_smoke_file_and_a_readme_and_none_was_missed() -> None:
    assert [path.parent.name for path in SMOKES] == [
        "demo", "document_qa_en", "document_qa_ja", "government_law_ja", "gsm8k", "hr_handbook", "intent_banking77",
        "sql", "viggo",
    ]  # fmt: skip
    for path in SMOKES:
        assert (path.parent / "experiment.yaml").is_file()
        assert (path.parent / "README.md").is_file()


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_experiment_file_is_valid(path: Path) -> None:
    assert problems_of(path) == []


def test_no_experiment_file_was_missed() -> None:
    assert len(FILES) == 19


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
    deployed = run / "export" / f"tuned-{config.lm.quantization}.gguf"
    assert "What each quantization scores" in report
    assert read_gguf(deployed).metadata["promptopt.experiment"] == config.name
    _answers_alone(deployed, run, config)
    _is_scored_again(run, config, results)
    card = (run / "report" / "model_card.md").read_text(encoding="utf-8")
    # What a file cannot carry, e.g. the documents of a program that retrieves, its card asks for.
    alone = is_its_predictor(build_program(config.program))
    assert (f"promptopt ask {deployed.name} --field" if alone else "program=") in card
    assert read_json(run / "export" / "models.json", ExportedModels).ggufs[0].sha256 in card
    assert {upload.name for upload in publishable(run)} >= {"README.md", deployed.name, "lora.gguf", "Modelfile"}


def _is_scored_again(run: Path, config: ExperimentConfig, results: RoadResults) -> None:
    """Score the kept answers by the experiment's own metric: the same figures, and no second opening of test."""
    (metric, *_) = (matrix := write_matrix([run], [config.metric], run / "matrix")).metrics
    assert [row.scores[metric].mean for row in matrix.rows] == [summary.mean for summary in results.summaries]
    assert len(read_openings(run)) == 1


def _answers_alone(deployed: Path, run: Path, config: ExperimentConfig) -> None:
    """Ask the deployed file what the run asked it, with nothing but the file, and compare the answers."""
    row = read_jsonl(run / "data" / "val.jsonl", DataRow)[0]
    inputs = {name: row.fields[name] for name in config.data.inputs}
    # A program that does more than ask, e.g. one that retrieves, must be brought along.
    own = build_program(config.program)
    loaded = load_gguf_program(
        deployed, program=None if is_its_predictor(own) else own, n_threads=1, cache_dir=None, batch_invariant=True
    )
    lm = loaded.get_lm()
    student = load_candidate(run / "distill" / "student.json")
    evaluator = Evaluator(build_program(config.program), student, lm, get_metric(config.metric), config.data.inputs)
    record = evaluator.evaluate(row)
    try:
        answer = loaded(**inputs)
    except AdapterParseError:
        assert record.outcome == Outcome.PARSE_FAILED
    else:
        assert record.prediction
        assert {name: answer[name] for name in record.prediction} == record.prediction
    assert lm.count_tokens(lm.history[-1]["messages"]) == record.prompt_tokens
    lm.close()
