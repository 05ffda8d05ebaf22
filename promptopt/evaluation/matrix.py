"""Several runs in one table: a row for each model and prompt that was measured, a column for each metric. Text only."""

from collections.abc import Sequence

from promptopt.evaluation.markdown import escape, table
from promptopt.records import EvaluationSummary, Record


class MatrixRow(Record):
    """One model and prompt of one run.

    Attributes:
        program: its import path, which says e.g. whether it retrieves.
        fingerprint: of the test rows.
        scores: metric -> summary; corpus figures stand among the details.
    """

    run: str
    program: str
    title: str
    fingerprint: str
    scores: dict[str, EvaluationSummary]


class Matrix(Record):
    """All rows, in the order in which runs and columns were named; every row has every metric."""

    metrics: tuple[str, ...]
    rows: tuple[MatrixRow, ...]


def matrix_cells(matrix: Matrix) -> list[list[str]]:
    """Return the table as plain text, the header first. A metric's corpus figures follow it."""
    corpus = {
        metric: [name for name in matrix.rows[0].scores[metric].details if name.endswith("(corpus)")]
        for metric in matrix.metrics
    }
    header = ["run", "program", "model and prompt", "rows", "parse failures"]
    header += [name for metric in matrix.metrics for name in (metric, *corpus[metric])]
    return [header, *(_cells(row, matrix.metrics, corpus) for row in matrix.rows)]


def render_matrix(matrix: Matrix) -> str:
    """Return the table as Markdown, with what must be known to read it, ending in one newline."""
    parts = [
        "# Runs by metrics",
        table([[escape(cell) for cell in row] for row in matrix_cells(matrix)], numbers_from=3),
        "Means over each run's test examples with 95 % percentile bootstrap intervals; an answer that does not parse "
        "scores 0. Nothing was asked again: the answers are those that `evaluate` kept.",
        _different_rows(matrix),
        "**These are test examples, and several figures for each system.** Whoever chooses by this table has chosen on "
        "the test split; a difference between two rows needs the paired comparison of a report.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _different_rows(matrix: Matrix) -> str:
    if len({row.fingerprint for row in matrix.rows}) == 1:
        return ""
    return "**The runs have different test rows.** Figures of runs that do not share their rows cannot be compared."


def _cells(row: MatrixRow, metrics: Sequence[str], corpus: dict[str, list[str]]) -> list[str]:
    first = row.scores[metrics[0]]
    cells = [row.run, row.program, row.title, str(first.n), str(first.parse_failures)]
    for metric in metrics:
        score = row.scores[metric]
        cells.append(f"{score.mean:.3f} ({score.ci_low:.3f} to {score.ci_high:.3f})")
        cells += [f"{score.details.get(name, 0.0):.3f}" for name in corpus[metric]]
    return cells
