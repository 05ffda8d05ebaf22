"""`promptopt matrix`: finished runs by metrics, in one table."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `promptopt matrix` takes."""
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folders of evaluated runs")
    parser.add_argument(
        "--metrics", required=True, metavar="NAME,NAME", help="e.g. bleu,rouge_l,ngram_similarity, or module:name"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/matrix"), help="folder (default: runs/matrix)")


def matrix(arguments: argparse.Namespace) -> int:
    """Score the kept answers, print the table and return 0."""
    from rich.console import Console
    from rich.table import Table

    from promptopt.evaluation.matrix import matrix_cells
    from promptopt.pipeline.matrix import write_matrix

    names = [name.strip() for name in arguments.metrics.split(",") if name.strip()]
    header, *rows = matrix_cells(write_matrix(arguments.runs, names, arguments.out))
    table = Table(title="Test answers that the runs kept")
    for number, title in enumerate(header):
        table.add_column(title, justify="left" if number < 3 else "right")
    for row in rows:
        table.add_row(*row)
    console = Console()
    console.print(table)
    console.print(f"Report: {arguments.out / 'matrix.md'}", highlight=False)
    return 0
