"""What each trial of an arm has cost so far, kept on disk so that a killed arm does not forget what it spent."""

import time
from pathlib import Path

from joint_bench.records import NOTHING_SPENT, added
from pydantic import Field
from search_bench.meter import Meter
from search_bench.records import Spent

from promptopt.records import Record
from promptopt.rundir import read_json, write_json

SAVE_EVERY_S = 2.0


class Spending(Record):
    """The ledger as a file.

    Attributes:
        trials: `study/number` -> cost.
        asked: study -> number of trials it was last asked for.
    """

    trials: dict[str, Spent] = Field(default_factory=dict)
    asked: dict[str, int] = Field(default_factory=dict)


class Ledger:
    """Books everything between two calls of `book` on the trial that is named; a kill loses at most two seconds.

    Args:
        path: of the file; what it holds already counts.
        meter: begins now.
    """

    def __init__(self, path: Path, meter: Meter) -> None:
        self._path = path
        kept = read_json(path, Spending) if path.exists() else Spending()
        self._trials, self._asked = dict(kept.trials), dict(kept.asked)
        self._meter = meter
        self._booked = NOTHING_SPENT
        self._saved = time.monotonic()

    def book(self, study: str, number: int) -> None:
        """Put what was spent since the last call on a trial."""
        now, key = self._meter.spent(), f"{study}/{number}"
        self._trials[key] = added(self.of(study, number), added(now, self._booked, -1))
        self._booked = now
        if time.monotonic() - self._saved > SAVE_EVERY_S:
            self.save()

    def settle(self, study: str, number: int) -> None:
        """Book the rest of a study, once its last request is done."""
        self._meter.settled()
        self.book(study, number)
        self.save()

    def ask(self, study: str, trials: int) -> None:
        """Note for how many trials a study is asked, so that a killed one is asked for the same."""
        self._asked[study] = trials
        self.save()

    def asked(self, study: str) -> int:
        """Return for how many trials a study was last asked; 0 for a new one."""
        return self._asked.get(study, 0)

    def of(self, study: str, number: int) -> Spent:
        """Return what a trial has cost."""
        return self._trials.get(f"{study}/{number}", NOTHING_SPENT)

    def total(self) -> Spent:
        """Return what all trials have cost."""
        whole = NOTHING_SPENT
        for spent in self._trials.values():
            whole = added(whole, spent)
        return whole

    def save(self) -> None:
        """Write the file."""
        write_json(self._path, Spending(trials=self._trials, asked=self._asked))
        self._saved = time.monotonic()
