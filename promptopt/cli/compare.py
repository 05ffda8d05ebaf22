"""`promptopt compare`: one program on several GGUFs, and one table."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from promptopt.errors import ConfigError

if TYPE_CHECKING:
    from promptopt.config.experiment import ExperimentConfig


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `promptopt compare` takes, beside the experiment and its folder."""
    parser.add_argument("--models", type=Path, nargs="+", required=True, metavar="MODEL.gguf")
    parser.add_argument("--split", choices=("val", "test"), default="val", help="test is for the last word only")
    parser.add_argument("--limit", type=int, metavar="N", help="rows per model (default: all)")
    parser.add_argument(
        "--candidate", action="append", default=[], metavar="MODEL=FILE",
        help="the prompt of one model (default: in the GGUF, beside it, or the best of this experiment)",
    )  # fmt: skip


def compare(config: "ExperimentConfig", arguments: argparse.Namespace, quiet: Callable[[], None]) -> int:
    """Measure, print the table and return 0; `quiet` is called once the libraries are loaded."""
    from rich.console import Console
    from rich.table import Table

    from promptopt.cli.live import LiveProgress
    from promptopt.evaluation.model_table import ModelComparison, model_rows
    from promptopt.pipeline.comparing import compare_models
    from promptopt.rundir import read_json

    quiet()
    with LiveProgress(f"{config.name} (compare)") as progress:
        folder = compare_models(
            config, arguments.models, arguments.split, arguments.limit, _candidates(arguments.candidate), progress,
            open_test_again=arguments.open_test_again,
        )  # fmt: skip
    compared = read_json(folder / "compare.json", ModelComparison)
    header, *rows = model_rows(compared.models)
    table = Table(title=f"{compared.rows} {compared.split} examples, {compared.metric}")
    for number, title in enumerate(header):
        table.add_column(title, justify="left" if number == 0 else "right")
    for row in rows:
        table.add_row(*row)
    console = Console()
    console.print(table)
    console.print(f"Report: {folder / 'compare.md'}", highlight=False)
    return 0


def _candidates(given: list[str]) -> dict[str, Path]:
    pairs = [text.partition("=") for text in given]
    wrong = [text for text, (name, _, path) in zip(given, pairs, strict=True) if not name or not path]
    if wrong:
        raise ConfigError(f"--candidate is {wrong[0]!r}; it needs the form MODEL=FILE, e.g. q8_0=candidate.json.")
    return {name: Path(path) for name, _, path in pairs}
