"""Racing: when it looks, and what a stopped trial is worth."""

import optuna
from hypothesis import given
from hypothesis import strategies as st

from promptopt.config.experiment import RacingConfig
from promptopt.study.pruning import is_look, look_points, looks, raced_out_value, racing_pruner

SCORES = st.lists(st.floats(0, 1), min_size=2, max_size=30)


def test_looks_begin_at_the_floor_and_come_in_blocks() -> None:
    config = RacingConfig(min_examples=10, block=5)
    assert [seen for seen in range(1, 30) if is_look(config, seen)] == [10, 15, 20, 25]
    assert looks(config, 25) == 3
    assert looks(config, 10) == 0
    assert look_points(config, 25) == (10, 15, 20)


def test_the_threshold_is_shared_among_the_looks() -> None:
    pruner = racing_pruner(RacingConfig(p_threshold=0.2, min_examples=10, block=5), 30)
    assert isinstance(pruner, optuna.pruners.WilcoxonPruner)
    assert pruner._p_threshold == 0.2 / 4
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
