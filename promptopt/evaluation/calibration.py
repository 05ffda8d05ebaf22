"""How far a judge agrees with people: agreement, Cohen's kappa, AUROC. Asks no LM and reads no file."""

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import fmean

from promptopt.errors import DataError
from promptopt.evaluation.statistics import bootstrap_interval
from promptopt.records import ExampleRecord, Outcome, Record

THRESHOLD = 0.5
"""A score from here on says "right": of ratings, 6 and more."""


class JudgeAgreement(Record):
    """What one judge's scores have to do with the human labels, over the answers on which it decided.

    Attributes:
        n: labelled answers; decided: those with a score; undecided: reason -> answers.
        agreement: share of decided answers where "score >= 0.5" equals the label; with a 95 % bootstrap interval.
        kappa: Cohen's, of the same verdicts; 0 where they agree as often as chance, None where it is undefined
            because judge and people gave one and the same verdict throughout.
        auroc: chance that a right answer scores above a wrong one, ties counting half; needs no threshold. None where
            only one label occurs.
    """

    judge: str
    n: int
    decided: int
    undecided: dict[str, int]
    agreement: float | None
    agreement_low: float | None
    agreement_high: float | None
    kappa: float | None
    auroc: float | None


class Calibration(Record):
    """What `promptopt judge calibrate` writes.

    Attributes:
        kind: of judge; lms: what it asks; asks: digest of LMs, wording and temperature, by which it is known again.
        data: name of the labelled data, or file name; sample: digest of the answers that were used.
        right: share of answers that people call right: what saying "right" always agrees with.
        judge: the judge; floor: a judge without an LM on the same answers, if there is one.
        published: what is known of that floor on all answers.
    """

    kind: str
    lms: tuple[str, ...]
    asks: str
    data: str
    sample: str
    right: float
    judge: JudgeAgreement
    floor: JudgeAgreement | None
    published: str = ""
    date: str = ""


def judge_agreement(
    name: str, records: Sequence[ExampleRecord], labels: Mapping[str, bool], seed: int
) -> JudgeAgreement:
    """Return how the scores in `records` agree with `labels` (example id -> whether people call the answer right).

    Raises:
        DataError: there are no records.
    """
    if not records:
        raise DataError("There are no labelled answers, so no judge can be calibrated on them.")
    scores = [
        (record.score, labels[record.example_id])
        for record in records
        if record.outcome is Outcome.SCORED and record.score is not None
    ]
    reasons = Counter(record.error for record in records if record.outcome is not Outcome.SCORED)
    verdicts = [(score >= THRESHOLD, label) for score, label in scores]
    agreed = [float(said == label) for said, label in verdicts]
    interval = bootstrap_interval(agreed, seed) if agreed else None
    return JudgeAgreement(
        judge=name,
        n=len(records),
        decided=len(scores),
        undecided=dict(reasons),
        agreement=fmean(agreed) if agreed else None,
        agreement_low=interval.low if interval else None,
        agreement_high=interval.high if interval else None,
        kappa=cohens_kappa(verdicts),
        auroc=auroc(scores),
    )


def cohens_kappa(verdicts: Sequence[tuple[bool, bool]]) -> float | None:
    """Return Cohen's kappa (1960) of two raters' yes/no verdicts; None where chance alone explains all agreement."""
    if not verdicts:
        return None
    first, second = fmean(one for one, _ in verdicts), fmean(other for _, other in verdicts)
    by_chance = first * second + (1 - first) * (1 - second)
    if by_chance == 1:
        return None
    return (fmean(one == other for one, other in verdicts) - by_chance) / (1 - by_chance)


def auroc(scores: Sequence[tuple[float, bool]]) -> float | None:
    """Return the area under the ROC curve, as the Mann-Whitney statistic over all pairs; None with one label only."""
    n_right = sum(label for _, label in scores)
    n_wrong = len(scores) - n_right
    if not n_right or not n_wrong:
        return None
    # Imported here: scipy.stats costs half a second.
    from scipy.stats import rankdata

    ranks = rankdata([score for score, _ in scores])
    of_right = sum(rank for rank, (_, label) in zip(ranks, scores, strict=True) if label)
    return float((of_right - n_right * (n_right + 1) / 2) / (n_right * n_wrong))


def calibration_sentence(found: Calibration) -> str:
    """Return what a report says of a judge's calibration, in one line."""
    judge, floor = found.judge, found.floor
    said = (
        f"On {judge.n} answers of {found.data} that people labelled ({found.right:.0%} right), this judge decided "
        f"{judge.decided}, agrees with people on {_shown(judge.agreement)} of them "
        f"({_shown(judge.agreement_low)} to {_shown(judge.agreement_high)}), kappa {_shown(judge.kappa)}, "
        f"AUROC {_shown(judge.auroc)}."
    )
    if floor is None:
        return said
    return f"{said} Without an LM, {floor.judge}: agreement {_shown(floor.agreement)}, AUROC {_shown(floor.auroc)}."


def beats_floor(found: Calibration) -> bool:
    """Return whether the judge ranks answers better than the judge without an LM does, or than chance without one."""
    judge, floor = found.judge.auroc, found.floor.auroc if found.floor else None
    return judge is not None and judge > (0.5 if floor is None else floor)


def _shown(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"
