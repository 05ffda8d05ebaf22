"""Plain sentences on what helped, what did not, and what the figures cannot show. Bad news is said, never softened."""

from promptopt.evaluation.report_data import Comparison, ReportData
from promptopt.evaluation.statistics import detectable_difference
from promptopt.records import EvaluationSummary, ParityReport

_LARGEST_P = 0.05


def comparison_sentence(comparison: Comparison, titles: dict[str, str]) -> str:
    """Return one sentence on a step: the difference with its interval, and whether the step did what it is for.

    A step counts as shown only where interval and p value agree; with a handful of examples the interval alone can be
    far too narrow.
    """
    found = comparison.difference
    after = titles.get(comparison.after, comparison.after)
    before = titles.get(comparison.before, comparison.before)
    figures = (
        f"{found.mean:+.3f} (95 % interval {found.low:+.3f} to {found.high:+.3f}, "
        f"p {_p_value(comparison.p_value)}, {found.n} examples)"
    )
    return f"{after} against {before}: {figures}. {_verdict(comparison)}"


def _verdict(comparison: Comparison) -> str:
    found = comparison.difference
    significant = comparison.p_value < _LARGEST_P
    if found.high < 0 and significant:
        return "It made the score worse." if comparison.purpose == "improve" else "It cost score."
    if found.low > 0 and significant:
        return "It helped." if comparison.purpose == "improve" else "It cost no score; the score even rose."
    if comparison.purpose == "preserve":
        return f"No loss is shown; a loss of up to {max(0.0, -found.low):.3f} cannot be ruled out."
    if found.mean < 0:
        return "It did not help: the score fell, though not by more than chance explains."
    if found.mean == 0:
        return "It did not help: the score is the same."
    seen = detectable_difference(found)
    return (
        f"It is not shown to help: the difference could be chance; these examples would show a gain of {seen:.3f} "
        "four times in five."
    )


def bad_news(data: ReportData) -> list[str]:
    """Return everything that a reader of the table should know and would rather not, as sentences."""
    titles = {summary.name: summary.title for summary in data.summaries}
    steps = [comparison_sentence(comparison, titles) for comparison in data.comparisons if not as_wished(comparison)]
    return steps + caveats(data)


def caveats(data: ReportData) -> list[str]:
    """Return the bad news that is not about a single step's difference."""
    lines = []
    if data.search and data.search.best_trial == 0:
        lines.append("The search found nothing better than the untouched program (trial 0).")
    if data.search and data.search.failed:
        lines.append(f"{data.search.failed} of {data.search.trials} trials failed and were not scored.")
    for summary in data.summaries:
        lines.extend(_about_summary(summary))
    lines.extend(
        f"The test split was opened again by {opening.who} on {opening.when} ({opening.reason}). Scores chosen after a "
        "look at test rows are too good."
        for opening in data.openings
        if opening.reason
    )
    for parity in data.parity:
        lines.extend(_about_parity(parity))
    return lines


def as_wished(comparison: Comparison) -> bool:
    """Return whether a step did what it is for: raised the score beyond chance, or did not lower it beyond chance."""
    found = comparison.difference
    if comparison.purpose == "preserve":
        return not (found.high < 0 and comparison.p_value < _LARGEST_P)
    return found.low > 0 and comparison.p_value < _LARGEST_P


def _about_summary(summary: EvaluationSummary) -> list[str]:
    lines = []
    scored = summary.n - summary.unscored
    if summary.parse_failures:
        lines.append(
            f"{summary.title}: {summary.parse_failures} of {summary.n} answers did not parse in their layout "
            "and score 0."
        )
    if summary.unscored:
        lines.append(f"{summary.title}: {summary.unscored} of {summary.n} examples have no score and are left out.")
    if summary.ci_low == summary.ci_high:
        # Rule of three (Hanley and Lippman-Hand 1983): what n equal outcomes still leave open.
        lines.append(
            f"{summary.title}: all {scored} examples score the same, so the interval is empty of meaning; "
            f"the true mean may be off by about {min(1.0, 3 / max(1, scored)):.3f}."
        )
    return lines


def _about_parity(parity: ParityReport) -> list[str]:
    lines = []
    if parity.token_ids_equal < parity.prompts:
        lines.append(
            f"{parity.quantization}: llama.cpp reads {parity.prompts - parity.token_ids_equal} of {parity.prompts} "
            f"prompts as other tokens than the HF tokenizer, so what is served is not what was trained. First: "
            f"{parity.first_mismatch}"
        )
    return lines


def _p_value(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"= {value:.3f}"
