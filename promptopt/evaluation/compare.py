"""Per-example records -> one summary per system, and paired differences between systems. Runs no model."""

from collections.abc import Collection, Mapping, Sequence
from itertools import combinations, pairwise
from statistics import fmean

from promptopt.errors import DataError
from promptopt.evaluation.report_data import Comparison
from promptopt.evaluation.statistics import PairedDifference, bootstrap_interval, holm, paired_bootstrap
from promptopt.metrics.base import Metric
from promptopt.records import DataRow, EvaluationSummary, ExampleRecord, Outcome, SplitName


def summarise(
    name: str,
    title: str,
    split: SplitName,
    records: Sequence[ExampleRecord],
    seed: int,
    corpus: Mapping[str, float] | None = None,
) -> EvaluationSummary:
    """Return the summary of `records`.

    `n` counts all records. The mean and its interval are over SCORED and PARSE_FAILED (which scores 0); UNSCORED
    records are counted and left out. A detail is averaged over the scored records that have it, and is 0 where parsing
    failed. Tokens and latency are means over all records.

    Args:
        corpus: figures over all records together (`corpus_figures`), shown among the details.

    Raises:
        DataError: no record has a score.
    """
    values = list(scores_by_id(records, f"{title!r} on {split}").values())
    interval = bootstrap_interval(values, seed)
    return EvaluationSummary(
        name=name,
        title=title,
        split=split,
        n=len(records),
        mean=fmean(values),
        ci_low=interval.low,
        ci_high=interval.high,
        parse_failures=_count(records, Outcome.PARSE_FAILED),
        unscored=_count(records, Outcome.UNSCORED),
        prompt_tokens=fmean(record.prompt_tokens for record in records),
        completion_tokens=fmean(record.completion_tokens for record in records),
        latency_s=fmean(record.latency_s for record in records),
        details=_mean_details(records) | {f"{name} (corpus)": value for name, value in (corpus or {}).items()},
    )


def corpus_figures(metric: Metric, rows: Sequence[DataRow], records: Sequence[ExampleRecord]) -> Mapping[str, float]:
    """Return the metric's figures over all records of `rows`; what did not parse counts as an empty prediction."""
    fields = {row.id: row.fields for row in rows}
    decided = [record for record in records if record.outcome is not Outcome.UNSCORED]
    return metric.corpus((fields[record.example_id], record.prediction) for record in decided)


def compare(a_records: Sequence[ExampleRecord], b_records: Sequence[ExampleRecord], seed: int) -> PairedDifference:
    """Return how b differs from a (b - a) on the examples on which both have a score.

    Raises:
        DataError: there is no such example.
    """
    first, second = scores_by_id(a_records, "the first system"), scores_by_id(b_records, "the second system")
    shared = sorted(first.keys() & second.keys())
    if not shared:
        raise DataError("The two evaluations share no scored example: they were made on different rows.")
    return paired_bootstrap([first[key] for key in shared], [second[key] for key in shared], seed)


def compare_all(
    road: Mapping[str, Sequence[ExampleRecord]], seed: int, preserving: Collection[str] = ()
) -> tuple[Comparison, ...]:
    """Return every later system against every earlier one, with p values corrected for all these pairs.

    Args:
        road: system name -> its records, in the order of the report's table.
        seed: of the resampling.
        preserving: names of systems that a step from their neighbour need only not lower the score (quantization).

    Raises:
        DataError: two systems share no scored example.
    """
    neighbours = set(pairwise(road))
    pairs = list(combinations(road, 2))
    differences = [compare(road[before], road[after], seed) for before, after in pairs]
    corrected = holm([difference.p_value for difference in differences])
    return tuple(
        Comparison(
            before=before,
            after=after,
            difference=difference,
            purpose="preserve" if (before, after) in neighbours and after in preserving else "improve",
            p_corrected=p_value,
        )
        for (before, after), difference, p_value in zip(pairs, differences, corrected, strict=True)
    )


def road_steps(pairs: Sequence[Comparison]) -> tuple[Comparison, ...]:
    """Return, of all pairs, each system against the one before it, and the last against the first."""
    names = list(dict.fromkeys(name for pair in pairs for name in (pair.before, pair.after)))
    wanted = list(dict.fromkeys([*pairwise(names), (names[0], names[-1])])) if names else []
    found = {(pair.before, pair.after): pair for pair in pairs}
    return tuple(found[names] for names in wanted)


def scores_by_id(records: Sequence[ExampleRecord], what: str) -> dict[str, float]:
    """Return example id -> score, 0 where parsing failed, without undecided examples; `what` names them in an error.

    Raises:
        DataError: no record has a score.
    """
    scores: dict[str, float] = {}
    for record in records:
        if record.outcome is Outcome.UNSCORED:
            continue
        scores[record.example_id] = record.score if record.score is not None else 0.0
    if not scores:
        raise DataError(f"No example has a score for {what}: {len(records)} record(s), all of them undecided.")
    return scores


def _count(records: Sequence[ExampleRecord], outcome: Outcome) -> int:
    return sum(record.outcome is outcome for record in records)


def _mean_details(records: Sequence[ExampleRecord]) -> dict[str, float]:
    names = dict.fromkeys(name for record in records if record.outcome is Outcome.SCORED for name in record.details)
    means = {}
    for name in names:
        values = [
            0.0 if record.outcome is Outcome.PARSE_FAILED else record.details[name]
            for record in records
            if record.outcome is Outcome.PARSE_FAILED or (record.outcome is Outcome.SCORED and name in record.details)
        ]
        means[name] = fmean(values)
    return means
