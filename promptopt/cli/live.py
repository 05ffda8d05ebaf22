"""Draws a run while it works, and its table when it is done (rich). Decides nothing."""

import json
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from promptopt.evaluation.report import summary_table
from promptopt.pipeline.judgement import RoadResults
from promptopt.rundir import read_json

PLAIN_EVERY_S = 10.0
"""Without a terminal (CI, a log file) one plain line is printed at most this often."""


class _Bars(Progress):
    """The bars, and below them one line about how fast the running stage goes."""

    speed = ""

    def get_renderables(self) -> Iterable[RenderableType]:
        """Return the bars and the line; as a column of the bars it would squeeze them at 80 characters."""
        yield from super().get_renderables()
        if self.speed:
            yield Text(f"  {self.speed}", no_wrap=True, overflow="ellipsis", style="dim")


class LiveProgress:
    """Draws a bar per stage on a terminal, and plain lines elsewhere. A context manager."""

    def __init__(self, name: str) -> None:
        self._console = Console(stderr=True)
        self._name = name
        self._stage = ""
        self._task: TaskID | None = None
        self._printed = 0.0
        self._started = time.monotonic()
        self._bars = _Bars(
            TextColumn("[bold]{task.fields[stage]:>9}"),
            BarColumn(bar_width=24),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TimeElapsedColumn(),
            TextColumn("{task.description}"),
            console=self._console,
        )

    def __enter__(self) -> "LiveProgress":
        self._console.print(f"[bold]promptopt[/bold] {self._name}")
        if self._console.is_terminal:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def stage(self, name: str, state: str) -> None:
        """Start or end the bar of a stage."""
        self._stage = name
        if not self._console.is_terminal:
            self._console.print(f"{time.monotonic() - self._started:7.1f}s  {name}: {state}", highlight=False)
            return
        if state == "running":
            self._task = self._bars.add_task("", total=1, stage=name)
        elif state == "kept":
            self._bars.add_task("finished by an earlier run", total=1, completed=1, stage=name)
        elif self._task is not None:
            total = self._bars.tasks[self._task].total
            self._bars.speed = ""
            self._bars.update(self._task, completed=total)
            self._bars.stop_task(self._task)

    def step(self, done: int, total: int, text: str, speed: str = "") -> None:
        """Move the bar of the running stage."""
        if self._console.is_terminal and self._task is not None:
            self._bars.speed = speed
            self._bars.update(self._task, completed=done, total=max(total, 1), description=text)
        elif time.monotonic() - self._printed >= PLAIN_EVERY_S:
            self._printed = time.monotonic()
            elapsed = self._printed - self._started
            line = "; ".join(part for part in (text, speed) if part)
            self._console.print(f"{elapsed:7.1f}s  {self._stage} {done}/{total}  {line}", highlight=False)

    def say(self, text: str) -> None:
        """Print one line above the bars."""
        self._console.print(text, highlight=False)


def print_outcome(folder: Path) -> None:
    """Print the table of a finished run and where its files are."""
    console = Console()
    results = read_json(folder / "evaluate" / "results.json", RoadResults)
    header, *rows = summary_table(results.summaries)
    table = Table(title="Test split, touched once")
    for number, title in enumerate(header):
        table.add_column(title, justify="left" if number == 0 else "right")
    for row in rows:
        table.add_row(*row)
    console.print(table)
    models = folder / "export" / "models.json"
    if any(summary.name == "tuned_gguf" for summary in results.summaries):
        console.print(f"GGUF:   {folder / 'export' / json.loads(models.read_text())['deployed']}", highlight=False)
    console.print(f"Prompt: {folder / 'search' / 'candidate.json'}", highlight=False)
    console.print(f"Report: {folder / 'report.md'}", highlight=False)
