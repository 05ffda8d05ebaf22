"""Several judges as one. Asks nothing itself."""

import hashlib
from collections.abc import Sequence

from promptopt.errors import ConfigError
from promptopt.metrics.base import Fields, Metric, Score
from promptopt.metrics.judges.asking import JudgeLM
from promptopt.metrics.judges.rating import Rating, RatingJudge, score_of
from promptopt.metrics.judges.verdict import HIGHEST


class Jury(Metric):
    """Several judges of the same kind on different LMs: the rounded mean of their ratings, half to even.

    Ratings that are missing are left out, as in Flow Benchmark Tools (whose judges write 0 for them); where none is
    left, the example is UNSCORED. Details: `rating_of_10`, the share of judges that were `decided`, and `judge_n`, what
    each of them said over 10.

    Raises:
        ConfigError: there are fewer than two judges.
    """

    def __init__(self, judges: Sequence[RatingJudge], *, name: str = "") -> None:
        if len(judges) < 2:
            raise ConfigError(f"A jury needs at least two judges; got {len(judges)}. One judge is a metric by itself.")
        self.judges = tuple(judges)
        self.name = name or f"jury of {len(judges)} {judges[0].name}"

    @property
    def lms(self) -> tuple[JudgeLM, ...]:
        """The LMs of all judges."""
        return tuple(lm for judge in self.judges for lm in judge.lms)

    def asks(self) -> str:
        """Return the digest of what decides a verdict, beside the example."""
        return hashlib.sha256(" ".join(judge.asks() for judge in self.judges).encode()).hexdigest()[:16]

    def identity(self) -> str:
        """Return the identities of the judges."""
        return " ".join(judge.identity() for judge in self.judges)

    def requires(self) -> tuple[str, ...]:
        """Return what the judges require."""
        return self.judges[0].requires()

    def requires_any(self) -> tuple[tuple[str, ...], ...]:
        """Return the groups of the judges."""
        return self.judges[0].requires_any()

    def score(self, example: Fields, prediction: Fields) -> Score:
        """Return the jury's rating as a score.

        Raises:
            DataError: the example lacks what the question needs.
            LMError: one of the LMs broke.
        """
        ratings = [judge.rate(example, prediction) for judge in self.judges]
        verdict = jury_rating([rating.value for rating in ratings])
        reasons = dict.fromkeys(rating.reason for rating in ratings if rating.reason)
        found = score_of(Rating(verdict, "; ".join(reasons)))
        said = {f"judge_{n}": rating.value / HIGHEST for n, rating in enumerate(ratings, start=1) if rating.value}
        decided = {"decided": len(said) / len(ratings)}
        return Score(found.value, found.feedback, {**found.details, **decided, **said})


def jury_rating(ratings: Sequence[int | None]) -> int | None:
    """Return the rounded mean of the ratings that are there (half to even); None and 0 are left out."""
    valid = [rating for rating in ratings if rating]
    return round(sum(valid) / len(valid)) if valid else None
