"""What a person sees while a run works: a bar and a line of speed on a terminal, plain lines elsewhere."""

import io

import pytest
from rich.console import Console

from promptopt.cli import live
from promptopt.cli.live import LiveProgress

SPEED = "1 h 40 min left, 12.3 calls/s, 340 tokens/s, 40% cached, 22% of prompts computed"


def drawn(monkeypatch: pytest.MonkeyPatch, *, terminal: bool, width: int = 80) -> tuple[LiveProgress, io.StringIO]:
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=width, color_system=None)
    monkeypatch.setattr(live, "Console", lambda stderr=False: console)
    monkeypatch.setattr(live, "PLAIN_EVERY_S", 0.0)
    return LiveProgress("demo"), file


def test_plain_lines_carry_the_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    progress, file = drawn(monkeypatch, terminal=False, width=200)
    with progress:
        progress.stage("search", "running")
        progress.step(3, 10, "trial 3", SPEED)
        progress.step(4, 10, "trial 4")
    assert f"search 3/10  trial 3; {SPEED}\n" in file.getvalue()
    assert "search 4/10  trial 4\n" in file.getvalue()


def test_on_a_terminal_the_speed_has_a_line_of_its_own_until_the_stage_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    progress, file = drawn(monkeypatch, terminal=True)
    with progress:
        progress.stage("search", "running")
        progress.step(3, 10, "trial 3: 12/40 examples, 0.512", SPEED)
        progress._bars.refresh()
        running = file.getvalue()
        progress.stage("search", "done")
        progress._bars.refresh()
    assert "search" in running
    assert "trial 3: 12/40 examples, 0.512" in running
    assert "  1 h 40 min left, 12.3 calls/s, 340 tokens/s, 40% cached, 22% of prompts comp" in running
    # The bar keeps its place beside them.
    assert "━" * 5 in running
    assert "calls/s" not in file.getvalue()[len(running) :].split("\r")[-1]
