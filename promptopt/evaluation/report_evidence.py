"""The report's sections on how far its figures carry: pairs of systems, slices, and who opened the test split."""

from promptopt.evaluation.markdown import escape, table
from promptopt.evaluation.report_data import ReportData, SliceLine, SliceTable


def pairs_section(data: ReportData) -> str:
    """Return every system against every earlier one, where that is more than the steps already said."""
    if len(data.pairs) < 2:
        return ""
    titles = {summary.name: summary.title for summary in data.summaries}
    rows = [
        [
            escape(titles.get(pair.after, pair.after)),
            escape(titles.get(pair.before, pair.before)),
            f"{pair.difference.mean:+.3f}",
            f"{pair.difference.low:+.3f} to {pair.difference.high:+.3f}",
            f"{pair.difference.p_value:.4f}",
            f"{pair.p_value:.4f}",
        ]
        for pair in data.pairs
    ]
    header = ["", "against", "difference", "95 % interval", "p", "p corrected"]
    text = f"Paired on the same examples. Corrected by Holm's method for {len(rows)} pairs; the intervals are not."
    return "\n\n".join(["### Every pair", table([header, *rows], numbers_from=2), text])


def slices_section(data: ReportData) -> str:
    """Return the scores by properties of the examples."""
    if not data.slices:
        return ""
    text = (
        "Mean score of the examples that share a property. Differences are of the last system against the first, with "
        "95 % intervals that are not corrected for the number of slices: they say where to look, not what is shown."
    )
    tables = [f"### By {escape(one.name)}\n\n{_slice_table(one, data)}" for one in data.slices]
    return "\n\n".join(["## Where the score comes from", text, *tables])


def _slice_table(one: SliceTable, data: ReportData) -> str:
    names = [summary.name for summary in data.summaries]
    header = ["", "examples", *(escape(summary.title) for summary in data.summaries), "last against first"]
    rows = [
        [
            escape(line.label),
            str(line.n),
            *(f"{line.means[name]:.3f}" if name in line.means else "" for name in names),
            _difference(line),
        ]
        for line in one.lines
    ]
    return table([header, *rows], numbers_from=1)


def _difference(line: SliceLine) -> str:
    found = line.difference
    return "" if found is None else f"{found.mean:+.3f} ({found.low:+.3f} to {found.high:+.3f})"


def openings_section(data: ReportData) -> str:
    """Return who opened the test split, and when."""
    if not data.openings:
        return ""
    rows = [
        [escape(one.when), escape(one.who), escape(one.command), escape(one.git_revision), escape(one.reason)]
        for one in data.openings
    ]
    header = ["when", "who", "command", "git revision", "why again"]
    return "### The test split was opened by\n\n" + table([header, *rows])
