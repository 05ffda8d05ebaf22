"""The search: trial 0, racing, determinism, going on after a kill, and what breaks loudly."""

import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import dspy
import pytest

import promptopt as po
from promptopt.candidate import load_candidate
from promptopt.config.experiment import RacingConfig, SearchConfig
from promptopt.errors import ConfigError, DataError, LMError
from promptopt.layout.spec import Layout
from promptopt.lm.scripted import ScriptedLM
from promptopt.records import TrialRecord
from promptopt.rundir import read_jsonl
from promptopt.study.runner import SearchProgress

PROGRAM = dspy.Predict("document, question -> answer")
EXAMPLES = [
    dspy.Example(document=f"The code of item{n} is {n}.", question=f"What is the code of item{n}?", answer=str(n))
    .with_inputs("document", "question")
    for n in range(40)
]  # fmt: skip
CONFIG = SearchConfig(
    layout={"query_position": ("before", "after"), "output_style": ("dspy", "xml"), "reminder": (True, False)},
    demo_sets=0,
    racing=RacingConfig(min_examples=14, block=6, p_threshold=0.4),
    sampler_startup=4,
)


def answer(messages: list[dict[str, str]]) -> str:
    """A model that reads XML prompts well and DSPy's own poorly."""
    text = messages[-1]["content"]
    number = re.findall(r"item(\d+)\?", text)[-1]
    if "<answer>" in text or "<answer>" in messages[0]["content"]:
        return f"<answer>{number}</answer>"
    told = number if int(number) % 4 == 0 else "unknown"
    return f"[[ ## answer ## ]]\n{told}\n\n[[ ## completed ## ]]"


def run(folder: Path | None = None, **changes: object) -> po.OptimizeResult:
    arguments: dict[str, object] = {
        "lm": ScriptedLM(answer), "metric": po.metrics.answer_f1, "train": EXAMPLES[:10], "val": EXAMPLES,
        "trials": 10, "config": CONFIG, "folder": folder, **changes,
    }  # fmt: skip
    return po.optimize(PROGRAM, **arguments)  # type: ignore[arg-type]


def test_it_finds_the_layout_that_works_and_reports_the_untouched_program(tmp_path: Path) -> None:
    result = run(tmp_path)
    assert result.best_score == 1.0
    assert result.best.layout.output_style == "xml"
    assert result.trials[0].layout == Layout().model_dump(mode="json")
    assert result.baseline_score == pytest.approx(0.25)
    assert load_candidate(tmp_path / "search" / "candidate.json") == result.best
    assert read_jsonl(tmp_path / "search" / "trials.jsonl", TrialRecord) == list(result.trials)


def test_losers_are_raced_out_and_never_win() -> None:
    result = run()
    raced = [trial for trial in result.trials if trial.state == "raced_out"]
    assert raced
    assert all(trial.examples < len(EXAMPLES) for trial in raced)
    assert all((trial.value or 0) < result.best_score for trial in raced)


def test_the_same_seed_gives_the_same_search() -> None:
    assert run(seed=3).trials == run(seed=3).trials
    assert [trial.params for trial in run(seed=3).trials] != [trial.params for trial in run(seed=4).trials]


@pytest.mark.parametrize("said_by", ["lm", "argument"])
def test_racing_decisions_do_not_depend_on_how_many_rows_run_at_once(said_by: str, tmp_path: Path) -> None:
    delays = random.Random(5)

    def late(messages: list[dict[str, str]]) -> str:
        time.sleep(delays.random() * 0.002)
        return answer(messages)

    lm = ScriptedLM(late, parallel=8 if said_by == "lm" else 1)
    together = run(tmp_path, lm=lm, parallel=None if said_by == "lm" else 8)
    assert together.trials == run().trials
    assert any(trial.state == "raced_out" for trial in together.trials)
    stored = sum(len(path.read_text().splitlines()) for path in tmp_path.glob("search/evaluations/*.jsonl"))
    raced = sum(trial.state == "raced_out" for trial in together.trials)
    assert stored <= len(lm.requests) <= stored + 8 * raced


def test_progress_says_how_fast_it_goes() -> None:
    speeds: list[SearchProgress] = []
    run(trials=3, on_progress=speeds.append)
    left = [progress.speed.left_s for progress in speeds]
    assert left[-1] == 0
    assert all(progress.speed.calls_per_s > 0 for progress in speeds)
    assert speeds[-1].speed.cached_share == 0
    with pytest.raises(ConfigError, match="parallel is 0"):
        run(parallel=0)


def test_a_broken_lm_raises_and_scores_nothing(tmp_path: Path) -> None:
    def broken(messages: list[dict[str, str]]) -> str:
        raise LMError("the server died")

    with pytest.raises(LMError, match="the server died"):
        run(tmp_path, lm=ScriptedLM(broken))
    assert not (tmp_path / "search" / "candidate.json").exists()


def test_examples_without_inputs_or_rows_without_gold_are_refused() -> None:
    with pytest.raises(ConfigError, match="with_inputs"):
        run(val=[dspy.Example(document="d", question="q", answer="a")])
    with pytest.raises(DataError, match="answer"):
        run(val=[dspy.Example(document="d", question="item1?").with_inputs("document", "question")] * 2)
    with pytest.raises(ConfigError, match="empty"):
        run(val=[])


def test_a_plain_dspy_metric_and_any_module_work() -> None:
    def exact(example: dspy.Example, prediction: dspy.Prediction, trace: object = None) -> bool:
        return bool(example.answer == prediction.answer)

    result = po.optimize(
        dspy.ChainOfThought("document, question -> answer"),
        lm=ScriptedLM(lambda messages: "[[ ## reasoning ## ]]\nx\n\n" + answer(messages)),
        metric=exact,
        train=[],
        val=EXAMPLES[:8],
        trials=2,
        config=SearchConfig(layout={"reminder": (True, False)}),
    )
    assert result.baseline_score == pytest.approx(0.25)


CHILD = """
import sys, time
from pathlib import Path
from tests.study import test_search as t
def slow(messages):
    time.sleep(0.004)
    return t.answer(messages)
t.run(Path(sys.argv[1]), lm=t.ScriptedLM(slow, parallel=int(sys.argv[2])))
"""


@pytest.mark.parametrize("parallel", [1, 4])
def test_a_search_killed_at_any_moment_comes_to_what_the_unbroken_one_comes_to(tmp_path: Path, parallel: int) -> None:
    whole = run(tmp_path / "whole")
    folder = tmp_path / "killed"
    kills = 0
    for delay in (0.15, 0.4, 0.7, 0.2):
        child = subprocess.Popen([sys.executable, "-c", CHILD, str(folder), str(parallel)], env={**os.environ})
        study = folder / "search" / "study.db"
        while not study.exists() and child.poll() is None:
            time.sleep(0.01)
        time.sleep(delay)
        if child.poll() is None:
            child.send_signal(signal.SIGKILL)
            kills += 1
        child.wait()
    assert kills >= 2
    asked: list[str] = []

    def counting(messages: list[dict[str, str]]) -> str:
        asked.append(messages[-1]["content"])
        return answer(messages)

    before = sum(len(path.read_text().splitlines()) for path in (folder / "search" / "evaluations").glob("*.jsonl"))
    resumed = run(folder, lm=ScriptedLM(counting))
    after = sum(len(path.read_text().splitlines()) for path in (folder / "search" / "evaluations").glob("*.jsonl"))
    assert resumed.trials == whole.trials
    assert resumed.best == whole.best
    # Every answer that was kept before the kill was used, and none was asked for again.
    assert len(asked) == after - before


def test_a_folder_of_another_task_is_set_aside_and_its_scores_are_not_taken(tmp_path: Path) -> None:
    def never(example: dspy.Example, prediction: dspy.Prediction, trace: object = None) -> float:
        return 0.0

    first = run(tmp_path, trials=2)
    assert run(tmp_path, trials=2, metric=never).best_score == 0.0
    assert len(list(tmp_path.glob("search.*/study.db"))) == 1
    assert run(tmp_path, trials=2).trials == first.trials


@pytest.mark.parametrize("seed", [20240501, 2**40])
def test_any_seed_works(seed: int) -> None:
    assert len(run(seed=seed, trials=2).trials) == 2


def test_no_trials_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        run(trials=0)
