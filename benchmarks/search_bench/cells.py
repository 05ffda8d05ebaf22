"""The results on disk, and the loop that fills them: what is there is not computed again."""

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from engine_bench.report import machine
from pydantic import JsonValue
from search_bench import dspy_side, our_side
from search_bench.meter import Meter, RememberedAnswers
from search_bench.outcome import Found, Options, Outcome, Run
from search_bench.programs import build, score_rows
from search_bench.records import Cell, Point, SavedProgram, Setup, TestScores
from search_bench.tasks import Sizes, Task, TaskRows, load_task

import promptopt
from promptopt.lm.llama_cpp.facade import LlamaCpp
from promptopt.rundir import append_jsonl, read_jsonl

METHODS: Mapping[str, Callable[[Run], Outcome]] = {
    "untouched": our_side.untouched,
    "promptopt": our_side.searched,
    "random": our_side.random_search,
    "mipro": dspy_side.mipro,
    "bootstrap": dspy_side.bootstrap,
}
OWN = ("promptopt", "random")
SEARCH_SOURCES = ("candidate.py", "layout", "pools", "study", "evaluation", "config")


def settings_of(method: str, options: Options) -> dict[str, JsonValue]:
    """Return those of the options that decide what `method` does."""
    names = {
        "untouched": (),
        "promptopt": ("trials",),
        "random": ("random_trials",),
        "mipro": ("mipro", "metric_threshold"),
        "bootstrap": ("bootstrap_candidates", "metric_threshold"),
    }[method]
    every = asdict(options)
    return {name: every[name] for name in (*names, "remember")}


def own_code() -> str:
    """Return a hash of promptopt's search as it stands in this working tree."""
    package = Path(str(promptopt.__file__)).parent
    digest = hashlib.sha256()
    for name in SEARCH_SOURCES:
        place = package / name
        for path in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


@dataclass(frozen=True)
class Results:
    """`cells.jsonl` and `tests.jsonl` of one folder; a line that a kill has torn is dropped."""

    folder: Path

    def cells(self) -> list[Cell]:
        """Return all cells."""
        return read_jsonl(self.folder / "cells.jsonl", Cell)

    def tests(self) -> list[TestScores]:
        """Return all test scores."""
        return read_jsonl(self.folder / "tests.jsonl", TestScores)

    def keep(self, record: Cell | TestScores) -> None:
        """Append a finished record."""
        append_jsonl(self.folder / ("cells.jsonl" if isinstance(record, Cell) else "tests.jsonl"), record)


@dataclass(frozen=True)
class Bench:
    """Everything that cells have in common.

    Attributes:
        open_lm: loads the model anew, for answers of at most so many tokens with a seed; nothing of an earlier cell's
            prompts is in its memory.
    """

    results: Results
    setup: Setup
    options: Options
    open_lm: Callable[[int, int], LlamaCpp]

    @contextmanager
    def lm(self, task: Task, seed: int) -> Iterator[LlamaCpp]:
        """Yield a fresh LM."""
        lm = self.open_lm(task.max_tokens, seed)
        try:
            yield lm
        finally:
            lm.close()

    def rows(self, task: Task) -> TaskRows:
        """Return the task's rows."""
        train, val, test = self.setup.rows
        with self.lm(task, 0) as lm:
            return load_task(task, lm, Sizes(train, val, test))

    def has_cell(self, task: Task, method: str, seed: int) -> bool:
        """Whether this cell was finished with these settings."""
        wanted = (self.setup, task.name, method, seed, settings_of(method, self.options))
        return any((c.setup, c.task, c.method, c.seed, c.settings) == wanted for c in self.results.cells())

    def run_cell(self, rows: TaskRows, method: str, seed: int) -> Cell:
        """Run one method on one task with one seed, and keep what came out."""
        task, splits = rows.task, rows.draw(seed)
        with self.lm(task, seed) as lm:
            memory = RememberedAnswers() if self.options.remember else None
            lm.chat.cache = memory  # type: ignore[assignment]
            host = machine()
            meter = Meter(lm, memory)
            run = Run(task, lm, meter, splits.train, splits.val, seed, self.options)
            outcome = METHODS[method](run)
            spent = meter.settled()
            notes = {
                **outcome.notes, "train": len(splits.train), "val": len(splits.val), "test": len(splits.test),
                "rows_looked_at": rows.looked_at, "rows_too_long": rows.dropped, "parallel": lm.parallel,
                "load_after": os.getloadavg()[0],
            }  # fmt: skip
        cell = Cell(
            setup=self.setup, task=task.name, method=method, seed=seed, settings=settings_of(method, self.options),
            metric=task.metric.name, metric_remark=task.remark,
            curve=tuple(Point(spent=f.spent, score=f.score, program=f.program.key()) for f in outcome.found),
            spent=spent, programs=best_so_far(outcome.found), notes=notes, code=own_code(), host=host,
        )  # fmt: skip
        self.results.keep(cell)
        return cell

    def run_test(self, rows: TaskRows, program: SavedProgram) -> TestScores:
        """Score a program on the test rows, and keep the scores."""
        with self.lm(rows.task, 0) as lm:
            scored = score_rows(build(program, rows.task), rows.task, lm, rows.test)
        made = TestScores(
            setup=self.setup, task=rows.task.name, program=program.key(), scores=scored.scores,
            unparsed=scored.unparsed, too_long=scored.too_long, seconds=scored.seconds,
        )  # fmt: skip
        self.results.keep(made)
        return made


def best_so_far(found: Sequence[Found]) -> dict[str, SavedProgram]:
    """Return those programs that were the best when they were scored, by key."""
    best, kept = float("-inf"), {}
    for one in found:
        if one.score > best:
            best = one.score
            kept[one.program.key()] = one.program
    return kept
