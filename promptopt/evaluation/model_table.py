"""Several models in one table: score, difference to the first, speed, size and memory. Text only; runs no model."""

from collections.abc import Sequence

from promptopt.evaluation.markdown import escape, table
from promptopt.evaluation.statistics import PairedDifference
from promptopt.records import EvaluationSummary, Record, SplitName


class MeasuredModel(Record):
    """One GGUF, measured with one prompt.

    Attributes:
        prompt: where its prompt comes from, in a few words.
        tokens_per_s: generated tokens per second of work, all examples that run at once together.
        peak_memory_bytes: largest resident size of the process that ran the model alone; a GPU's memory is not in it.
        difference: to the first model of the table, on the same examples; None for the first.
    """

    summary: EvaluationSummary
    file: str
    sha256: str
    quantization: str
    size_bytes: int
    prompt: str
    tokens_per_s: float | None = None
    peak_memory_bytes: int | None = None
    difference: PairedDifference | None = None


class ModelComparison(Record):
    """One program on several models. `date` is that of the last measurement, `metric` what the scores are."""

    experiment: str
    metric: str
    split: SplitName
    rows: int
    date: str
    models: tuple[MeasuredModel, ...]


def model_rows(models: Sequence[MeasuredModel]) -> list[list[str]]:
    """Return the table as plain text, the header first; a column that no model has is left out."""
    header = ["model", "score", "95 % interval", "difference to the first", "parse failures", "tokens/s", "size",
              "peak memory", "prompt"]  # fmt: skip
    rows = [header, *(_row(model) for model in models)]
    known = [number for number in range(len(header)) if any(row[number] for row in rows[1:])]
    return [[row[number] for number in known] for row in rows]


def render_comparison(compared: ModelComparison) -> str:
    """Return the comparison as Markdown, ending in one newline."""
    cells = [[escape(cell) for cell in row] for row in model_rows(compared.models)]
    parts = [
        f"# {escape(compared.experiment)}: {len(compared.models)} models",
        table(cells, numbers_from=1),
        f"Score: {escape(compared.metric)}, mean over {compared.rows} {compared.split} examples; an answer that does "
        "not parse scores 0. Intervals: percentile bootstrap; differences are paired on the same examples, p values "
        "from the paired randomisation test, not corrected for several models. Tokens/s: generated, all examples that "
        "run at once together. Peak memory: of the process that runs the model alone, without a GPU's.",
        _test_note(compared),
        "\n".join(f"- {escape(model.summary.title)}: sha256 {model.sha256[:16]}" for model in compared.models),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _test_note(compared: ModelComparison) -> str:
    if compared.split != "test":
        return ""
    return (
        "**These are test examples.** Whoever chooses a model by this table has chosen on the test split: its figures "
        "are then too good, and new examples are needed to say how good."
    )


def _row(model: MeasuredModel) -> list[str]:
    summary, found = model.summary, model.difference
    memory = model.peak_memory_bytes
    return [
        f"{summary.title} ({model.quantization})",
        f"{summary.mean:.3f}",
        f"{summary.ci_low:.3f} to {summary.ci_high:.3f}",
        "" if found is None else f"{found.mean:+.3f} ({found.low:+.3f} to {found.high:+.3f}, p {found.p_value:.3f})",
        f"{summary.parse_failures} of {summary.n}",
        "" if model.tokens_per_s is None else f"{model.tokens_per_s:.0f}",
        f"{model.size_bytes / 1e6:.1f} MB",
        "" if memory is None else f"{memory / 1e6:.0f} MB",
        model.prompt,
    ]
