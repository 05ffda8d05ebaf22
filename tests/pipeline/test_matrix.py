"""`promptopt matrix` on folders as runs leave them: the kept answers under other metrics, and what it refuses."""

import json
from pathlib import Path

import pytest

from promptopt.cli import main as cli
from promptopt.config.experiment import ExperimentConfig
from promptopt.config.load import load_experiment
from promptopt.data.splits import fingerprint
from promptopt.errors import ConfigError, StageError
from promptopt.evaluation.compare import summarise
from promptopt.evaluation.report_data import DataOverview
from promptopt.pipeline.judgement import RoadResults
from promptopt.pipeline.matrix import write_matrix
from promptopt.pipeline.openings import open_test_split, read_openings
from promptopt.records import DataRow, ExampleRecord, Outcome
from promptopt.rundir import RunDir, hash_inputs, write_json, write_jsonl, write_text

REPOSITORY = Path(__file__).parents[2]
ROWS = [DataRow(id=str(n), fields={"question": f"q{n}", "answer": f"the answer is {n}"}) for n in range(4)]


def run_with(folder: Path, answers: list[str | None], rows: list[DataRow] = ROWS, name: str = "one") -> Path:
    """Leave what the stages data, search and evaluate leave; None is an answer that did not parse."""
    config = load_experiment(REPOSITORY / "experiments" / "demo" / "smoke.yaml").model_copy(update={"name": name})
    write_text(folder / "experiment.json", config.model_dump_json())
    run = RunDir(folder)
    data = run.stage("data", {"settings": "", "after": {}})
    prints = {"train": "", "val": "", "test": fingerprint(rows)}
    counts = {"train": 0, "val": 0, "test": len(rows)}
    write_json(
        data.path / "overview.json",
        DataOverview(rows=counts, bad_rows=0, duplicates=0, overlapping=0, left_over=0, fingerprints=prints),
    )
    write_jsonl(data.path / "test.jsonl", rows)
    data.finish()
    search = run.stage("search", {"settings": "", "after": {"data": data.inputs}})
    search.finish()
    after = {"search": search.inputs}
    evaluate = run.stage("evaluate", {"settings": "", "after": dict(after)})
    open_test_split(folder, hash_inputs(dict(after)), prints["test"])
    records = [
        ExampleRecord(example_id=row.id, outcome=Outcome.PARSE_FAILED, score=0.0)
        if answer is None
        else ExampleRecord(example_id=row.id, outcome=Outcome.SCORED, score=0.5, prediction={"answer": answer})
        for row, answer in zip(rows, answers, strict=True)
    ]
    write_jsonl(evaluate.path / "base_plain.jsonl", records)
    summary = summarise("base_plain", "plain", "test", records, 0)
    write_json(evaluate.path / "results.json", RoadResults(summaries=(summary,)))
    evaluate.finish()
    return folder


GOOD: list[str | None] = ["the answer is 0", "the answer is 9", "no", None]


def test_kept_answers_are_scored_by_other_metrics_without_another_opening(tmp_path: Path) -> None:
    run = run_with(tmp_path / "run", GOOD)
    matrix = write_matrix([run], ["answer_exact_match", "answer_f1", "bleu"], tmp_path / "out")
    (row,) = matrix.rows
    # SQuAD's F1 drops "the": 1, 2 of 3 words, 0, and 0 for what did not parse.
    assert row.scores["answer_exact_match"].mean == 0.25
    assert row.scores["answer_f1"].mean == pytest.approx((1 + 2 / 3) / 4)
    assert (row.scores["answer_f1"].n, row.scores["answer_f1"].parse_failures) == (4, 1)
    assert 0 < row.scores["bleu"].details["bleu (corpus)"] < 1
    written = (tmp_path / "out" / "matrix.md").read_text(encoding="utf-8")
    assert "| 0.250 (0.000 to 0.750) |" in written and "bleu (corpus)" in written
    assert "different test rows" not in written
    assert json.loads((tmp_path / "out" / "matrix.json").read_text(encoding="utf-8"))["rows"][0]["title"] == "plain"
    assert len(read_openings(run)) == 1


def test_runs_with_different_rows_are_said_not_to_compare(tmp_path: Path) -> None:
    runs = [run_with(tmp_path / "a", GOOD), run_with(tmp_path / "b", GOOD[:2], ROWS[:2], "two")]
    assert [row.run for row in write_matrix(runs, ["answer_f1"], tmp_path).rows] == ["one", "two"]
    assert "different test rows" in (tmp_path / "matrix.md").read_text(encoding="utf-8")


def test_the_command_prints_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_with(tmp_path / "run", GOOD)
    assert cli.main(["matrix", str(run), "--metrics", "answer_f1,rouge_l", "--out", str(tmp_path / "out")]) == 0
    assert "matrix.md" in capsys.readouterr().out
    assert cli.main(["matrix", str(run), "--metrics", "rouge_m"]) == 2
    assert "Did you mean 'rouge_l'?" in capsys.readouterr().err


def test_what_is_no_evaluated_run_is_refused_and_opens_nothing(tmp_path: Path) -> None:
    run = run_with(tmp_path / "run", GOOD)
    with pytest.raises(ConfigError, match="is no folder of a run"):
        write_matrix([tmp_path / "none"], ["answer_f1"], tmp_path)
    for runs, metrics in (([run, run], ["answer_f1"]), ([run], []), ([run], ["bleu", "bleu"])):
        with pytest.raises(ConfigError, match="each once"):
            write_matrix(runs, metrics, tmp_path)
    RunDir(run).stage("search", {"settings": "other", "after": {}}).finish()
    with pytest.raises(StageError, match="was made before the data or the search"):
        write_matrix([run], ["answer_f1"], tmp_path)
    (run / "evaluate" / "stage.json").unlink()
    with pytest.raises(StageError, match="'evaluate' has not finished"):
        write_matrix([run], ["answer_f1"], tmp_path)
    assert len(read_openings(run)) == 1


def test_a_run_of_another_version_is_named(tmp_path: Path) -> None:
    write_text(tmp_path / "experiment.json", json.dumps({"schema_version": 99}))
    assert "schema_version" in ExperimentConfig.model_fields
    with pytest.raises(ConfigError, match="of another version of promptopt"):
        write_matrix([tmp_path], ["answer_f1"], tmp_path)
