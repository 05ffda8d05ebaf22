"""Racing: when a losing candidate is stopped, and what the sampler is told of it. Sees scores, never prompts.

Paired tests on blocks of examples follow CAPO (arXiv 2504.16005). What is asked is whether the candidate can still end
ahead of the best: the examples run out, so what is left to happen shrinks, which no test of a population's mean knows.
This is the predictive probability of stochastic curtailment (Lan, Simon and Halperin 1982) with a flat prior.
benchmarks/racing.py measures this against Optuna's WilcoxonPruner and others.
"""

import math
from collections.abc import Mapping, Sequence

import optuna

from promptopt.config.experiment import RacingConfig

LEAST_LOSS = 1e-6
"""What a stopped trial is behind the best at least: Optuna must never take one for the best trial."""

SCORES = "scores"
"""Trial attribute: score of each example in order, null where it was undecided."""

LEAST_DIFFERENCE = 1e-9
"""Scores that differ by less differ by rounding."""


def racing_pruner(config: RacingConfig, n_examples: int) -> optuna.pruners.BasePruner:
    """Return the pruner of a study whose full evaluation has `n_examples` examples.

    The threshold is divided by the number of looks: every look is one more chance to lose by accident.
    """
    if not config.enabled or looks(config, n_examples) == 0:
        return optuna.pruners.NopPruner()
    return ChancePruner(config.p_threshold / looks(config, n_examples), config.min_examples)


class ChancePruner(optuna.pruners.BasePruner):
    """Stops a trial whose chance to end ahead of the best trial is below `threshold`, given the steps both have.

    Steps are examples, and both trials see the same ones; a trial with fewer than `min_shared` of them goes on.
    """

    def __init__(self, threshold: float, min_shared: int) -> None:
        self.threshold = threshold
        self.min_shared = min_shared

    def prune(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> bool:
        """Return whether `trial` is to be stopped."""
        try:
            best = scores_of(study.best_trial)
        except ValueError:  # there is none yet
            return False
        scores = scores_of(trial)
        shared = sorted(scores.keys() & best.keys())
        if len(shared) < self.min_shared:
            return False
        differences = [scores[step] - best[step] for step in shared]
        return chance_to_end_ahead(differences, len(best)) < self.threshold


def scores_of(trial: optuna.trial.FrozenTrial) -> Mapping[int, float]:
    """Return the trial's scores by step (position of the example).

    They stand in one attribute: storing each as an intermediate value would cost a commit per example.
    """
    noted = trial.user_attrs.get(SCORES)
    if noted is None:
        return trial.intermediate_values
    return {step: score for step, score in enumerate(noted) if score is not None}


def chance_to_end_ahead(differences: Sequence[float], n_examples: int) -> float:
    """Return the chance that `n_examples` paired differences sum to more than 0, given the first of them.

    Where signs are as good as random, the sum of differences has the sum of their squares as variance (the sign-flip
    test); n examples of which k were seen leave the predicted final sum sqrt(n / (n - k)) times as certain. Equal
    scores add nothing: Wilcoxon's test with zeros split lets them add variance, and sees no losers on hard tasks. As
    the last one, a difference of the mean size is granted, without which few differences would say too much (McNemar).
    """
    sizes = [abs(difference) for difference in differences if abs(difference) > LEAST_DIFFERENCE]
    left = n_examples - len(differences)
    if not sizes or left <= 0:
        return 1.0
    total = sum(differences) + sum(sizes) / len(sizes)
    z = total / math.sqrt(sum(size * size for size in sizes)) * math.sqrt(n_examples / left)
    return math.erfc(-z / math.sqrt(2)) / 2


def looks(config: RacingConfig, n_examples: int) -> int:
    """Return how many times a trial of `n_examples` examples is tested before its end."""
    return len(look_points(config, n_examples))


def look_points(config: RacingConfig, n_examples: int) -> tuple[int, ...]:
    """Return after how many examples those tests come; nowhere else is a trial stopped."""
    return tuple(seen for seen in range(1, n_examples) if is_look(config, seen))


def is_look(config: RacingConfig, seen: int) -> bool:
    """Return whether the race is judged after `seen` examples."""
    return seen >= config.min_examples and (seen - config.min_examples) % config.block == 0


def raced_out_value(scores: Mapping[int, float], best_scores: Mapping[int, float]) -> float:
    """Return an estimate of the full mean of a trial that was stopped.

    The best trial's full mean plus the mean paired difference on the examples both have seen: the easy or hard luck of
    the first examples cancels, and a stopped trial, which lost on them, can never become the best.

    Args:
        scores, best_scores: example step -> score in [0, 1].
    """
    shared = sorted(scores.keys() & best_scores.keys())
    difference = sum(scores[step] - best_scores[step] for step in shared) / len(shared)
    return sum(best_scores.values()) / len(best_scores) + min(difference, -LEAST_LOSS)
