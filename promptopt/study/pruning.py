"""Racing: when a losing candidate is stopped, and what the sampler is told of it. Sees scores, never prompts.

Paired tests on blocks of examples follow CAPO (arXiv 2504.16005); the test is Optuna's WilcoxonPruner.
"""

import warnings
from collections.abc import Mapping

import optuna

from promptopt.config.experiment import RacingConfig

LEAST_LOSS = 1e-6
"""What a stopped trial is behind the best at least: Optuna must never take one for the best trial."""


def racing_pruner(config: RacingConfig, n_examples: int) -> optuna.pruners.BasePruner:
    """Return the pruner of a study whose full evaluation has `n_examples` examples.

    The threshold is divided by the number of looks (Bonferroni): every look is one more chance to lose by accident.
    """
    if not config.enabled or looks(config, n_examples) == 0:
        return optuna.pruners.NopPruner()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.pruners.WilcoxonPruner(
            p_threshold=config.p_threshold / looks(config, n_examples), n_startup_steps=config.min_examples
        )


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
