"""ReportData -> the Markdown report, and the table that report and command line share. Reads no file, knows no DSPy."""

from collections.abc import Sequence

from promptopt.evaluation.findings import as_wished, caveats, comparison_sentence
from promptopt.evaluation.markdown import escape, table
from promptopt.evaluation.report_data import ReportData
from promptopt.evaluation.report_evidence import openings_section, pairs_section, slices_section
from promptopt.evaluation.report_parts import (
    data_section,
    export_section,
    finetune_section,
    prompt_section,
    run_section,
    search_section,
)
from promptopt.records import EvaluationSummary

TABLE_HEADER = ("", "score", "95 % interval", "parse failures", "prompt tokens", "latency (ms)")


def summary_table(summaries: Sequence[EvaluationSummary]) -> list[list[str]]:
    """Return the road's table as plain text: a header, then one row per system. Tokens, ms: means per example."""
    rows = [
        [
            summary.title,
            f"{summary.mean:.3f}",
            f"{summary.ci_low:.3f} to {summary.ci_high:.3f}",
            f"{summary.parse_failures} of {summary.n}",
            f"{summary.prompt_tokens:.0f}",
            f"{summary.latency_s * 1000:.0f}",
        ]
        for summary in summaries
    ]
    return [list(TABLE_HEADER), *rows]


def render_report(data: ReportData) -> str:
    """Return the report as Markdown, ending in one newline."""
    sections = [
        f"# {escape(data.experiment)}",
        result_section(data),
        steps_section(data),
        pairs_section(data),
        bad_news_section(data),
        slices_section(data),
        search_section(data.search),
        prompt_section(data),
        finetune_section(data.finetune),
        export_section(data.ggufs, data.parity, data.quantizations, data.deployed),
        data_section(data.data),
        openings_section(data),
        run_section(data.run),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def result_section(data: ReportData) -> str:
    """Return the road's table, with what its figures mean."""
    if not data.summaries:
        return "No evaluation has run yet."
    cells = [[escape(cell) for cell in row] for row in summary_table(data.summaries)]
    splits = sorted({f"{summary.n} {summary.split} examples" for summary in data.summaries})
    text = (
        f"Score: {escape(data.metric)}, mean over {' and '.join(splits)}; an answer that does not parse scores 0. "
        "Intervals: percentile bootstrap. Tokens and latency: means per example; latency is that of the example's own "
        "calls, while others run beside them."
    )
    judge = f"The judge: {escape(data.judge)}" if data.judge else ""
    parts = ["## Result", table(cells, numbers_from=1), text, judge, _details_table(data.summaries)]
    return "\n\n".join(part for part in parts if part)


def _details_table(summaries: Sequence[EvaluationSummary]) -> str:
    names = list(dict.fromkeys(name for summary in summaries for name in summary.details))
    if not names:
        return ""
    rows = [
        [escape(summary.title), *(f"{summary.details[name]:.3f}" if name in summary.details else "" for name in names)]
        for summary in summaries
    ]
    return "### Parts of the score\n\n" + table([["", *(escape(name) for name in names)], *rows], numbers_from=1)


def steps_section(data: ReportData) -> str:
    """Return whether each step of the road helped."""
    if not data.comparisons:
        return ""
    titles = {summary.name: summary.title for summary in data.summaries}
    lines = []
    for comparison in data.comparisons:
        sentence = escape(comparison_sentence(comparison, titles))
        lines.append(f"- {sentence}" if as_wished(comparison) else f"- **{sentence}**")
    corrected = "corrected for every pair of systems (Holm)" if data.pairs else "not corrected"
    method = f"Paired on the same examples; p values from the paired randomisation test, {corrected}."
    return "\n\n".join(["## Did each step help?", "\n".join(lines), method])


def bad_news_section(data: ReportData) -> str:
    """Return caveats and warnings; empty where there are none."""
    lines = [f"- {escape(line)}" for line in (*caveats(data), *data.warnings)]
    return "## Bad news and warnings\n\n" + "\n".join(lines) if lines else ""
