"""Racing: when it looks, and what a stopped trial is worth."""

import math
import random

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptopt.config.experiment import RacingConfig
from promptopt.study.pruning import (
    ChancePruner,
    chance_to_end_ahead,
    is_look,
    look_points,
    looks,
    raced_out_value,
    racing_pruner,
)

SCORES = st.lists(st.floats(0, 1), min_size=2, max_size=30)


def test_looks_begin_at_the_floor_and_come_in_blocks() -> None:
    config = RacingConfig(min_examples=10, block=5)
    assert [seen for seen in range(1, 30) if is_look(config, seen)] == [10, 15, 20, 25]
    assert looks(config, 25) == 3
    assert looks(config, 10) == 0
    assert look_points(config, 25) == (10, 15, 20)


def test_the_threshold_is_shared_among_the_looks() -> None:
    pruner = racing_pruner(RacingConfig(p_threshold=0.2, min_examples=10, block=5), 30)
    assert isinstance(pruner, ChancePruner)
    assert pruner.threshold == 0.2 / 4
    assert pruner.min_shared == 10
    assert isinstance(racing_pruner(RacingConfig(enabled=False), 100), optuna.pruners.NopPruner)
    assert isinstance(racing_pruner(RacingConfig(min_examples=50), 40), optuna.pruners.NopPruner)


@given(best=SCORES, seen=st.integers(1, 30), drop=st.floats(0, 1))
def test_a_stopped_trial_is_never_worth_more_than_the_best(best: list[float], seen: int, drop: float) -> None:
    best_scores = dict(enumerate(best))
    scores = {step: max(0.0, value - drop) for step, value in list(best_scores.items())[:seen]}
    value = raced_out_value(scores, best_scores)
    assert value < sum(best) / len(best)


def test_easy_first_examples_do_not_flatter_a_stopped_trial() -> None:
    best = {0: 1.0, 1: 1.0, 2: 0.0, 3: 0.0}
    stopped = {0: 1.0, 1: 0.0}
    # Its own mean is 0.5, like the best's; on the same examples it is half a point behind.
    assert raced_out_value(stopped, best) == 0.0


def test_the_pruner_stops_a_clear_loser_and_spares_an_equal() -> None:
    config = RacingConfig(p_threshold=0.2, min_examples=10, block=5)
    study = optuna.create_study(direction="maximize", pruner=racing_pruner(config, 40))
    first = study.ask()
    for step in range(40):
        first.report(float(step % 4 != 0), step)
    study.tell(first, 0.75)
    loser, equal = study.ask(), study.ask()
    for step in range(20):
        loser.report(float(step % 4 == 0), step)
        equal.report(float(step % 4 != 0), step)
    assert loser.should_prune()
    assert not equal.should_prune()


def test_no_trial_is_stopped_before_there_is_a_best_one_or_with_too_few_shared_examples() -> None:
    study = optuna.create_study(direction="maximize", pruner=ChancePruner(0.1, 10))
    first = study.ask()
    for step in range(20):
        first.report(1.0, step)
    assert not first.should_prune()
    study.tell(first, 1.0)
    loser = study.ask()
    for step in range(9):
        loser.report(0.0, step)
    assert not loser.should_prune()
    loser.report(0.0, 30)  # the best has no such example
    assert not loser.should_prune()
    loser.report(0.0, 10)
    assert loser.should_prune()


def test_the_chance_to_end_ahead_is_that_of_the_remaining_examples() -> None:
    """All orders of a finished race are as likely: of those that begin badly, few end well."""
    rng = random.Random(0)
    kept = ended_ahead = promised = 0.0
    for _ in range(4000):
        differences = rng.choices((-1.0, 0.0, 0.0, 1.0), k=80)
        chance = chance_to_end_ahead(differences[:40], 80)
        if chance < 0.3:
            kept += 1
            promised += chance
            ended_ahead += sum(differences) > 0
    assert kept > 400
    assert ended_ahead / kept < 1.3 * promised / kept < 0.2


@pytest.mark.parametrize("seen", [16, 40, 64])
def test_equal_scores_do_not_hide_a_loser(seen: int) -> None:
    differences = [-1.0] * 6 + [0.0] * (seen - 6)
    assert chance_to_end_ahead(differences, 80) < 0.05
    assert chance_to_end_ahead([0.0] * seen, 80) == 1.0


def test_a_lead_is_never_stopped_and_few_differences_say_little() -> None:
    assert chance_to_end_ahead([1.0] * 3 + [0.0] * 20, 40) > 0.9
    assert chance_to_end_ahead([-1.0] + [0.0] * 20, 40) == 0.5
    assert chance_to_end_ahead([-1.0, -1.0] + [0.0] * 20, 40) > 0.1


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=30), st.integers(1, 100))
def test_a_chance_is_a_chance(differences: list[float], left: int) -> None:
    chance = chance_to_end_ahead(differences, len(differences) + left)
    assert 0 <= chance <= 1
    assert not math.isnan(chance)
