"""The query position experiment on a few rows: every cell is measured, kept, and shown."""

from pathlib import Path

import pytest

from experiments.query_position.figure import Dot, draw
from experiments.query_position.run import POSITIONS, PROMPTS, main
from promptopt.errors import DataError


def test_every_cell_is_measured_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--rows", "3", "--languages", "en", "--threads", "1", "--out", str(tmp_path)]
    try:
        assert main(arguments) == 0
    except DataError as error:
        if "PROMPTOPT_DATA" not in str(error):
            raise
        pytest.skip(str(error))
    text = capsys.readouterr().out
    assert (tmp_path / "table.md").read_text() == text
    kept = {path.stem: path.read_text() for path in tmp_path.glob("*.jsonl")}
    assert set(kept) == {f"en-{prompt}-{position}" for prompt in PROMPTS for position in POSITIONS}
    assert all(len(lines.splitlines()) == 3 for lines in kept.values())
    assert (tmp_path / "figure.svg").read_text().count("<circle") == len(POSITIONS) + len(kept)
    # Again: nothing is asked, the same comes out.
    assert main(arguments) == 0
    assert capsys.readouterr().out == text


def test_the_figure_keeps_what_it_is_given_as_text() -> None:
    figure = draw([Dot("<en>", "a & b", 0.5, 0.4, 0.6)], "x < y")
    assert "&lt;en&gt;" in figure
    assert "a &amp; b" in figure
