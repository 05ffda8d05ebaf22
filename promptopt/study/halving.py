"""Successive halving of trainings: stopped at a rung when others were further there. Sees scores, never rows.

Asynchronous successive halving (Li et al. 2018, arXiv 1810.05934), on the task metric first: validation loss is a poor
proxy of it, and losses under different layouts are losses of different texts.
"""

import math
from collections.abc import Sequence

import optuna
from optuna.trial import FrozenTrial

from promptopt.config.joint import HalvingConfig
from promptopt.study.trials import slot_of

TRAINING = "training"
"""Trial attribute: whether the trial is in its training, so that it is judged by rungs and not by examples."""
RUNGS = "rungs"
"""Trial attribute: [mean score on the rung's rows, evaluation loss, step of training] of each rung passed, in order."""


def goes_on(mine: tuple[float, float], others: Sequence[tuple[float, float]], keep: float) -> bool:
    """Return whether a training goes on from a rung: whether it is among the best `keep` of all that were there so far.

    Args:
        mine, others: score (higher is better) and evaluation loss (lower is better; decides equal scores).
    """
    better = sum(_key(other) > _key(mine) for other in others)
    return better < max(1, math.ceil(keep * (len(others) + 1)))


def _key(rung: tuple[float, float]) -> tuple[float, float]:
    return rung[0], -rung[1]


def rungs_of(trial: FrozenTrial) -> list[tuple[float, float]]:
    """Return what the trial noted at its rungs."""
    return [(float(score), float(loss)) for score, loss, _ in trial.user_attrs.get(RUNGS, [])]


class StudyPruner(optuna.pruners.BasePruner):
    """The one pruner of a study with two kinds of trial: rungs while a trial trains, the race when it is scored."""

    def __init__(self, racing: optuna.pruners.BasePruner, halving: HalvingConfig) -> None:
        self._racing = racing
        self._halving = halving

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Return whether the trial is stopped where it is."""
        if not trial.user_attrs.get(TRAINING):
            return self._racing.prune(study, trial)
        mine = rungs_of(trial)
        if not self._halving.enabled or not mine:
            return False
        here = len(mine) - 1
        # A trial that a dead worker left is the same training as the one that does it again: one rival, and none of
        # itself.
        slot = slot_of(trial)
        others = {
            slot_of(other): rungs_of(other)[here]
            for other in study.get_trials(deepcopy=False)
            if slot_of(other) != slot and len(rungs_of(other)) > here
        }
        return not goes_on(mine[here], list(others.values()), self._halving.keep)
