"""A study that is not what it was, constraints nobody meets, and twenty kills."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest

from promptopt.config.joint import ConstraintsConfig
from promptopt.errors import StageError
from promptopt.study.storage import STORAGE_VERSION
from tests.study.test_search import CHILD, CONFIG, run


def test_a_pool_that_changed_under_its_study_is_refused(tmp_path: Path) -> None:
    run(tmp_path, trials=2)
    pools = tmp_path / "search" / "pools.json"
    pools.write_text(pools.read_text().replace("produce the fields", "make the fields"))
    with pytest.raises(StageError, match="changed under it"):
        run(tmp_path, trials=2)


@pytest.mark.parametrize("change", ["newer", "foreign"])
def test_a_storage_of_another_version_is_refused(tmp_path: Path, change: str) -> None:
    run(tmp_path, trials=2)
    url = f"sqlite:///{tmp_path / 'search' / 'study.db'}"
    (name,) = optuna.get_all_study_names(url)
    if change == "newer":
        optuna.load_study(study_name=name, storage=url).set_user_attr("promptopt_storage", STORAGE_VERSION + 1)
        said = "written by another version of promptopt"
    else:
        optuna.delete_study(study_name=name, storage=url)
        optuna.create_study(study_name=name, storage=url, direction="maximize").add_trial(
            optuna.create_trial(value=1.0)
        )
        said = "not written by this version"
    with pytest.raises(StageError, match=said):
        run(tmp_path, trials=2)


def test_a_file_that_is_no_database_is_refused_in_one_line(tmp_path: Path) -> None:
    run(tmp_path, trials=2)
    study = tmp_path / "search" / "study.db"
    for path in tmp_path.glob("search/study.db*"):
        path.unlink()
    study.write_text("this is no database, whatever its name says " * 100)
    with pytest.raises(StageError, match="cannot be opened"):
        run(tmp_path, trials=2)


def test_a_trial_beyond_a_limit_never_wins() -> None:
    free = run()
    cheapest = min(trial.prompt_tokens for trial in free.trials if trial.state == "complete")
    assert free.trials[0].prompt_tokens > cheapest
    limit = ConstraintsConfig(prompt_tokens=cheapest)
    bound = run(config=CONFIG.model_copy(update={"constraints": limit}))
    winner = next(trial for trial in bound.trials if trial.candidate_key == bound.best.key())
    assert winner.feasible
    assert winner.prompt_tokens <= cheapest
    assert any(not trial.feasible and "prompt_tokens" in trial.unmet for trial in bound.trials)
    with pytest.raises(StageError, match=r"No trial meets search.constraints .*closest, trial"):
        run(config=CONFIG.model_copy(update={"constraints": ConstraintsConfig(prompt_tokens=1)}))


@pytest.mark.slow
def test_killed_twenty_times_it_finishes_the_trials_of_the_unbroken_search(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole")
    folder = tmp_path / "killed"
    moments = random.Random(20)
    kills = 0
    for _ in range(20):
        child = subprocess.Popen([sys.executable, "-c", CHILD, str(folder), "4"], env={**os.environ})
        study = folder / "search" / "study.db"
        while not study.exists() and child.poll() is None:
            time.sleep(0.01)
        # Half of them while the child still imports and opens the study, half while it scores.
        time.sleep(moments.uniform(0.0, 3.0))
        if child.poll() is None:
            child.send_signal(signal.SIGKILL)
            kills += 1
        child.wait()
    assert kills >= 10
    assert run(folder).trials == whole.trials
