"""promptopt's search, random search over the same space, and the program as it was written."""

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest import mock

from search_bench.outcome import Found, Outcome, Run
from search_bench.programs import saved_dspy_program, score_rows
from search_bench.records import SavedProgram, Spent
from search_bench.tasks import examples

import promptopt
from promptopt.candidate import Candidate
from promptopt.config.experiment import RacingConfig, SearchConfig


def searched(run: Run) -> Outcome:
    """`promptopt.optimize` with its defaults: all layouts, labelled demos, no written instructions."""
    return _optimize(run, SearchConfig(trials=run.options.trials))


def random_search(run: Run) -> Outcome:
    """The same space and demos, drawn at random; every candidate sees all rows."""
    trials = run.options.random_trials
    return _optimize(run, SearchConfig(trials=trials, sampler_startup=trials, racing=RacingConfig(enabled=False)))


def untouched(run: Run) -> Outcome:
    """The program as DSPy runs it."""
    program = run.task.program()
    scores = score_rows(program, run.task, run.lm, run.val)
    notes = {"unparsed": scores.unparsed, "too_long": scores.too_long}
    return Outcome([Found(run.meter.spent(), scores.mean, saved_dspy_program(program))], notes)


def _optimize(run: Run, config: SearchConfig) -> Outcome:
    ends: dict[int, Spent] = {}

    def on_progress(progress: Any) -> None:
        if progress.examples == progress.rows:
            ends.setdefault(progress.trial, run.meter.spent())

    with _applied_candidates() as applied:
        result = promptopt.optimize(
            run.task.program(), lm=run.lm, metric=run.task.metric, train=examples(run.task, run.train),
            val=examples(run.task, run.val), trials=config.trials, seed=run.seed, config=config,
            on_progress=on_progress, parallel=run.lm.parallel,
        )  # fmt: skip
    complete = [trial for trial in result.trials if trial.state == "complete"]
    found = [
        Found(ends[trial.number], trial.mean_score, SavedProgram(candidate=applied[trial.candidate_key], laid_out=True))
        for trial in complete
        if trial.mean_score is not None
    ]
    states = [trial.state for trial in result.trials]
    notes = {state: states.count(state) for state in ("complete", "raced_out", "failed")}
    return Outcome(found, {**notes, "rows_seen": sum(trial.examples for trial in result.trials)})


@contextlib.contextmanager
def _applied_candidates() -> Iterator[dict[str, Candidate]]:
    """Yield key -> candidate of all that are applied to a program: a finished trial names its candidate by key only."""
    applied: dict[str, Candidate] = {}
    original = Candidate.apply

    def apply(self: Candidate, program: object) -> object:
        applied[self.key()] = self
        return original(self, program)

    with mock.patch.object(Candidate, "apply", apply):
        yield applied
