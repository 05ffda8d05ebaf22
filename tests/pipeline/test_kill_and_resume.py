"""A run killed with SIGKILL in every stage that takes time ends as the unbroken run, and repeats nothing finished."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from promptopt.config.load import load_experiment
from promptopt.pipeline.judgement import RoadResults
from promptopt.pipeline.run import run_experiment
from promptopt.rundir import read_json

REPOSITORY = Path(__file__).parents[2]
KILLS = (("search", 1.0), ("search", 2.5), ("search", 6.0), ("search", 12.0), ("export", 0.5), ("evaluate", 1.5))
"""Stage and seconds into it: moments that hit loading, scoring, training and writing."""


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    smoke = yaml.safe_load((REPOSITORY / "experiments" / "demo" / "smoke.yaml").read_text(encoding="utf-8"))
    smoke["search"]["trials"] = 3
    path = tmp_path_factory.mktemp("experiment") / "experiment.yaml"
    path.write_text(yaml.safe_dump(smoke))
    return path


def _start(experiment: Path, run: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "promptopt.cli.main", "run", str(experiment), "--run-dir", str(run)],
        cwd=REPOSITORY,
        # Without the response cache, an answer that was paid for can only come from the run's own files.
        env={**os.environ, "XDG_CACHE_HOME": str(run.parent / "cache")},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _kill_in(stage: str, seconds: float, experiment: Path, run: Path) -> bool:
    child = _start(experiment, run)
    while child.poll() is None and not (run / stage / "inputs.json").exists():
        time.sleep(0.02)
    time.sleep(seconds)
    killed = child.poll() is None
    child.send_signal(signal.SIGKILL)
    child.wait()
    return killed


def _lines(run: Path) -> dict[str, list[str]]:
    # Who opened the test split, and when, is no result.
    paths = [path for path in run.rglob("*.jsonl") if path.name != "test_openings.jsonl"]
    return {str(path.relative_to(run)): path.read_text().splitlines() for path in paths}


def test_killed_in_every_stage_it_ends_as_the_unbroken_run(experiment: Path, tmp_path: Path) -> None:
    killed_run, whole_run = tmp_path / "killed", tmp_path / "whole"
    kills = 0
    for stage, seconds in KILLS:
        kills += _kill_in(stage, seconds, experiment, killed_run)
        before = _lines(killed_run)
        finished = {path: path.read_bytes() for path in killed_run.glob("*/stage.json")}
    assert kills >= 3
    last = _start(experiment, killed_run)
    assert last.wait(timeout=600) == 0
    after = _lines(killed_run)
    for name, lines in before.items():
        whole_lines = [line for line in lines if line.endswith("}")]
        assert after[name][: len(whole_lines)] == whole_lines, f"{name} was written again"
    assert all(path.read_bytes() == content for path, content in finished.items())

    config = load_experiment(experiment).model_copy(update={"run_dir": str(whole_run)})
    run_experiment(config)
    for name in ("search/trials.jsonl", "search/candidate.json", "search/tuned.json", "distill/train.jsonl"):
        assert (killed_run / name).read_text() == (whole_run / name).read_text(), name
    assert _losses(killed_run) == _losses(whole_run)
    killed, whole = (_answers(run) for run in (killed_run, whole_run))
    assert killed == whole


def _losses(run: Path) -> list[float]:
    history = json.loads((run / "finetune" / "result.json").read_text())["history"]
    return [point["eval_loss"] for point in history if point["eval_loss"] is not None]


def _answers(run: Path) -> list[tuple[str, float, int]]:
    results = read_json(run / "evaluate" / "results.json", RoadResults)
    return [(summary.name, summary.mean, summary.parse_failures) for summary in results.summaries]
