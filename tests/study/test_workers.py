"""Several workers on one study, on a real PostgreSQL server: one dies in the middle of a trial, nothing is lost."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

import promptopt as po
from promptopt.config.experiment import SearchConfig
from promptopt.errors import ConfigError, StageError
from promptopt.lm.scripted import ScriptedLM
from promptopt.metrics.plain import as_metric
from promptopt.records import TrialRecord
from promptopt.rundir import read_jsonl
from promptopt.study.artifacts import Artifacts
from promptopt.study.optimize import _inputs_of, _rows
from promptopt.study.search import search, work
from promptopt.study.storage import close_study, open_study
from promptopt.study.task import SearchTask
from promptopt.study.trials import finished, slot_of
from promptopt.study.tuner import KEPT_FILES
from tests.study.postgres_server import BINARIES, postgres_server
from tests.study.test_search import CONFIG, EXAMPLES, PROGRAM, answer

TRIALS = 16
NOBODY = "postgresql+psycopg://promptopt:secret@127.0.0.1:1/none"

pytestmark = pytest.mark.skipif(
    any(shutil.which(name) is None for name in BINARIES), reason="PostgreSQL's binaries (initdb, pg_ctl) are not here"
)


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    with postgres_server() as url:
        yield url


def task(delay_s: float) -> SearchTask:
    def slow(messages: list[dict[str, str]]) -> str:
        time.sleep(delay_s)
        return answer(messages)

    inputs = _inputs_of(EXAMPLES)
    return SearchTask(
        PROGRAM,
        ScriptedLM(slow),
        as_metric(po.metrics.answer_f1),
        inputs,
        _rows(EXAMPLES[:10], inputs),
        _rows(EXAMPLES, inputs),
    )


def config(url: str) -> SearchConfig:
    return CONFIG.model_copy(update={"storage": url, "trials": TRIALS, "heartbeat_s": 1})


CHILD = """
import sys
from pathlib import Path
from promptopt.study.search import search, work
from tests.study import test_workers as t
role, url, folder, name = sys.argv[1:]
run = search if role == "lead" else work
run(t.task(0.04), t.config(url), 0, Path(folder), study_name=name)
"""


@pytest.fixture
def processes() -> Iterator[list[subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for process in started:
        process.kill()
        process.wait()


def start(role: str, url: str, folder: Path, name: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", CHILD, role, url, str(folder), name], env={**os.environ})


@contextmanager
def watched(url: str, name: str, *, join: bool) -> Iterator[optuna.Study]:
    study = open_study(url, name, optuna.pruners.NopPruner(), join=join)
    try:
        yield study
    finally:
        close_study(study)


def wait_for(condition: object, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.05)


@pytest.mark.slow
def test_four_workers_of_which_one_is_killed_finish_every_trial_once(
    database: str, tmp_path: Path, processes: list[subprocess.Popen[bytes]]
) -> None:
    lead = start("lead", database, tmp_path / "lead", "four")
    processes.append(lead)
    storage = optuna.storages.RDBStorage(database)
    wait_for(lambda: "four" in optuna.get_all_study_names(storage) or lead.poll() is not None)
    storage.engine.dispose()
    with watched(database, "four", join=True) as study:
        wait_for(lambda: len(study.get_trials(deepcopy=False)) == TRIALS)
        workers = [start("work", database, tmp_path / f"worker{number}", "four") for number in range(3)]
        processes += workers
        held = hold_in_a_trial(study, workers[0], tmp_path / "worker0")
        workers[0].send_signal(signal.SIGKILL)
        assert lead.wait(timeout=180) == 0
        assert [worker.wait(timeout=60) for worker in workers[1:]] == [0, 0]
        workers[0].wait()

        trials = study.get_trials(deepcopy=False)
        assert Counter(slot_of(trial) for trial in finished(study)) == Counter(range(TRIALS))
        assert {trial.state for trial in trials} == {TrialState.COMPLETE, TrialState.FAIL}
        (left,) = [trial for trial in trials if trial.state is TrialState.FAIL]
        (again,) = [trial for trial in trials if trial.number >= TRIALS]
        assert left.number == held
        assert slot_of(again) == slot_of(left)
        assert again.params == left.params
    records = read_jsonl(tmp_path / "lead" / "trials.jsonl", TrialRecord)
    assert [record.number for record in records] == list(range(TRIALS))
    evaluated = [path for path in tmp_path.glob("*/evaluations/*.jsonl") if path.stat().st_size]
    assert len({path.parts[-3] for path in evaluated}) == 4, "every worker has worked"


def _candidate(trial: optuna.trial.FrozenTrial) -> str:
    return str(trial.user_attrs.get("asked", {}).get("candidate", ""))


def hold_in_a_trial(study: optuna.Study, worker: subprocess.Popen[bytes], folder: Path) -> int:
    """Stop `worker` in the middle of a trial; return which one it was."""

    def asked() -> str:
        """Return the beginning of the key of the candidate the worker has scored four to ten examples of."""
        for path in folder.glob("evaluations/*.jsonl"):
            if 4 <= len(path.read_bytes().splitlines()) <= 10:
                return path.stem
        return ""

    while True:
        wait_for(asked)
        worker.send_signal(signal.SIGSTOP)
        key = asked()
        running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        held = [trial.number for trial in running if key and _candidate(trial).startswith(key)]
        if len(held) == 1:
            return held[0]
        # It was done with it in the meantime, or another worker tries the same.
        worker.send_signal(signal.SIGCONT)


def test_a_worker_needs_a_study_that_someone_leads(database: str, tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"no study 'nobody'.*Start `promptopt run`"):
        work(task(0), config(database), 0, tmp_path, study_name="nobody")
    with pytest.raises(ConfigError, match="--storage"):
        work(task(0), CONFIG, 0, tmp_path)
    with pytest.raises(
        StageError, match=r"postgresql\+psycopg://promptopt:\*\*\*@127\.0\.0\.1:1/none cannot be opened"
    ):
        search(task(0), config(NOBODY), 0, tmp_path)
    with pytest.raises(ConfigError, match="database driver"):
        search(task(0), config("postgresql+nodriver://127.0.0.1/none"), 0, tmp_path)


def test_a_worker_with_another_space_is_refused(database: str, tmp_path: Path) -> None:
    own = config(database).model_copy(update={"trials": 1})
    search(task(0), own, 0, tmp_path / "lead", study_name="space")
    other = own.model_copy(update={"layout": {"reminder": (True, False)}})
    with pytest.raises(StageError, match="space of the study 'space' changed"):
        work(task(0), other, 0, tmp_path / "other", study_name="space")


def test_what_one_worker_trained_another_can_fetch(database: str, tmp_path: Path) -> None:
    with (
        watched(database, "artifacts", join=False) as study,
        watched(database, "artifacts", join=False) as again,
    ):
        _keep_and_fetch(study, again, tmp_path)


def _keep_and_fetch(study: optuna.Study, again: optuna.Study, tmp_path: Path) -> None:
    study.enqueue_trial({}, user_attrs={"slot": 0})
    trial = study.ask()
    made = tmp_path / "made"
    for name in KEPT_FILES:
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).write_bytes(name.encode() * 1000)
    store = Artifacts(tmp_path / "store")
    store.keep(study, trial, made, "a" * 64)
    store.keep(study, trial, made, "a" * 64)
    assert len(list((tmp_path / "store").iterdir())) == len(KEPT_FILES)
    # The same training done again elsewhere: other weights under the same trial.
    for name in KEPT_FILES:
        (made / name).write_bytes(name.encode() * 999)
    store.keep(study, trial, made, "b" * 64)
    Artifacts(tmp_path / "store").fetch(again, 0, tmp_path / "fetched", "b" * 64)
    assert all((tmp_path / "fetched" / name).read_bytes() == (made / name).read_bytes() for name in KEPT_FILES)
    with pytest.raises(StageError, match=r"lacks .* of trial 3"):
        store.fetch(again, 3, tmp_path / "none", "b" * 64)
    with pytest.raises(StageError, match=r"same search\.artifacts"):
        Artifacts(tmp_path / "empty").fetch(again, 0, tmp_path / "none", "b" * 64)
    with pytest.raises(ConfigError, match="s3://bucket/prefix"):
        Artifacts("ftp://somewhere")
