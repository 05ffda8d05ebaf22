"""Generations with two workers: the leader writes the next pools, the other finds them among the artifacts."""

import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import optuna
import pytest

from promptopt.config.experiment import SearchConfig
from promptopt.lm.scripted import ScriptedLM
from promptopt.pools.pool import Pools
from promptopt.records import TrialRecord
from promptopt.rundir import read_json, read_jsonl
from promptopt.study.storage import close_study, open_study
from promptopt.study.task import SearchTask
from tests.study import test_workers
from tests.study.postgres_server import BINARIES, postgres_server
from tests.study.test_study_generations import BETTER, grown, heedful, proposer

TRIALS = 14
NAME = "grown"

pytestmark = pytest.mark.skipif(
    any(shutil.which(name) is None for name in BINARIES), reason="PostgreSQL's binaries (initdb, pg_ctl) are not here"
)

CHILD = """
import sys
from pathlib import Path
from promptopt.study.search import search, work
from tests.study import test_worker_generations as t
role, url, folder, store = sys.argv[1:]
run = search if role == "lead" else work
run(t.grown_task(role), t.shared(url, store), 0, Path(folder), study_name=t.NAME)
"""


def grown_task(role: str) -> SearchTask:
    def slow(messages: list[dict[str, str]]) -> str:
        time.sleep(0.02)
        return heedful(messages)

    return replace(test_workers.task(0), lm=ScriptedLM(slow), proposer=proposer() if role == "lead" else None)


def shared(url: str, store: str) -> SearchConfig:
    return grown(storage=url, artifacts=store, trials=TRIALS, heartbeat_s=1)


def start(role: str, url: str, folder: Path) -> subprocess.Popen[bytes]:
    arguments = [sys.executable, "-c", CHILD, role, url, str(folder / role), str(folder / "store")]
    return subprocess.Popen(arguments, env={**os.environ})


@pytest.mark.slow
def test_a_worker_follows_the_leader_into_the_next_generation(tmp_path: Path) -> None:
    with postgres_server() as url:
        lead = start("lead", url, tmp_path)
        try:
            close_study(open_study(url, NAME, optuna.pruners.NopPruner(), join=True, patience_s=60))
            worker = start("work", url, tmp_path)
            try:
                assert lead.wait(timeout=120) == 0
                assert worker.wait(timeout=60) == 0
            finally:
                worker.kill()
        finally:
            lead.kill()
    records = read_jsonl(tmp_path / "lead" / "trials.jsonl", TrialRecord)
    assert Counter(record.number for record in records) == Counter(range(TRIALS))
    second = [read_json(tmp_path / role / "pools-g1.json", Pools) for role in ("lead", "work")]
    assert second[0] == second[1]
    assert BETTER in second[0].predictors["self"].instructions
    assert max(record.value or 0 for record in records) == 1.0
