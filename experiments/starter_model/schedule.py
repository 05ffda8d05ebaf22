"""The curriculum: which kinds of rows at which point of the training, by tokens seen."""

from dataclasses import dataclass

OTHER_SHARE = 0.15
"""Share of unsupervised tokens that still carry some loss."""
OTHER_WEIGHT = 0.5
"""Weight of those tokens."""


@dataclass(frozen=True)
class Stage:
    """Shares of the kinds of rows, facts per document, the longest row, and the share of rows with thrice the facts."""

    until: int
    shares: dict[str, float]
    facts: tuple[int, int]
    longest: int
    stretch: float = 0.0


STAGES = (
    Stage(300_000, {"copy": 0.5, "recall": 0.25, "after": 0.25}, (1, 3), 256),
    Stage(900_000, {"copy": 0.15, "recall": 0.2, "after": 0.35, "before": 0.15, "layout": 0.15}, (1, 4), 320),
    Stage(2_000_000, {"copy": 0.04, "recall": 0.08, "after": 0.28, "before": 0.1, "layout": 0.5}, (1, 6), 448),
    Stage(3_400_000, {"copy": 0.02, "recall": 0.06, "after": 0.26, "before": 0.1, "layout": 0.56}, (1, 8), 640),
    Stage(
        99_000_000, {"copy": 0.02, "recall": 0.04, "after": 0.22, "before": 0.09, "layout": 0.63}, (1, 9), 1024, 0.05
    ),
)


def stage_at(seen: int) -> Stage:
    """The stage after `seen` tokens."""
    return next(s for s in STAGES if seen < s.until)
