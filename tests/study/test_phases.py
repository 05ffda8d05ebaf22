"""Phases, halving, constraints and the Pareto front: rules on records, without a model."""

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptopt.config.experiment import SearchConfig
from promptopt.config.joint import ConstraintsConfig, HalvingConfig, WeightsSearch
from promptopt.config.recipe import TrainingRecipe
from promptopt.errors import ConfigError
from promptopt.records import TrialRecord
from promptopt.study.costs import ServingCost, pareto_front
from promptopt.study.halving import RUNGS, TRAINING, StudyPruner, goes_on
from promptopt.study.phases import Phase, Plan, best_tuned
from tests.study.test_joint_space import space

PLAN = Plan(prompts=4, weights=3, winners=2, after=2)
CONFIG = SearchConfig(
    trials=4, layout={"reminder": (True, False), "prefill": (True, False)}, weights=WeightsSearch(trials=3, after=2)
)
SPACE = space(CONFIG, recipe=TrainingRecipe())


def record(number: int, value: float | None, **changes: object) -> TrialRecord:
    params = {"layout.reminder": number % 2 == 0, "layout.prefill": number % 4 < 2, "weights": "frozen"}
    fields = {
        "number": number, "state": "complete" if value is not None else "failed", "value": value, "mean_score": value,
        "examples": 10, "candidate_key": str(number), "layout": {}, "params": params, **changes,
    }  # fmt: skip
    return TrialRecord.model_validate(fields)


def test_phases_follow_each_other_and_wait_for_each_other() -> None:
    assert Plan.of_config(CONFIG, tunes=True) == PLAN
    assert Plan.of_config(CONFIG, tunes=False) == Plan(prompts=4)
    assert [PLAN.phase(slot) for slot in range(PLAN.trials)] == [Phase.PROMPTS] * 4 + [Phase.WEIGHTS] * 3 + [
        Phase.AFTER
    ] * 2
    assert [PLAN.needs_before(slot) for slot in range(PLAN.trials)] == [0] * 4 + [4] * 3 + [7] * 2


def test_the_winners_of_the_first_phase_are_tuned_with_the_start_recipe() -> None:
    frozen = [record(0, 0.2), record(1, 0.9, feasible=False, unmet={"latency_s": 1}), record(2, 0.5), record(3, 0.4)]
    first, second, third = (PLAN.given(slot, SPACE, frozen) for slot in (4, 5, 6))
    assert first["layout.reminder"] == frozen[2].params["layout.reminder"]
    assert first["weights"] == second["weights"] == "tuned"
    assert first["recipe.learning_rate"] == TrainingRecipe().learning_rate
    assert second["layout.prefill"] == frozen[3].params["layout.prefill"]
    assert third == {}
    assert PLAN.given(1, SPACE, []) == {"weights": "frozen"}


def test_the_last_phase_keeps_the_recipe_of_the_best_tuned_trial_and_frees_the_prompt() -> None:
    tuned = {"layout.reminder": True, "weights": "tuned", "recipe.rank": 8}
    trials = [
        record(4, 0.6, kind="tuned", weights_of=4, params=tuned),
        record(5, 0.8, kind="tuned", weights_of=5, params={**tuned, "recipe.rank": 32}),
        record(7, 0.9, kind="tuned", weights_of=5, params={**tuned, "recipe.rank": 32}),
    ]
    best = best_tuned(trials)
    assert best is not None
    assert best.number == 5
    assert PLAN.given(8, SPACE, trials) == {"recipe.rank": 32, "weights": "tuned"}
    assert PLAN.given(8, SPACE, [record(4, None, kind="tuned")]) == {}


@given(st.lists(st.tuples(st.sampled_from([0.0, 0.5, 1.0]), st.floats(0, 5)), max_size=12), st.floats(0.1, 0.9))
def test_halving_keeps_the_better_part_of_a_rung_and_never_none(others: list[tuple[float, float]], keep: float) -> None:
    everyone = [*others, (0.5, 1.0)]
    survivors = [mine for number, mine in enumerate(everyone)
                 if goes_on(mine, everyone[:number] + everyone[number + 1 :], keep)]  # fmt: skip
    assert survivors
    best = max(everyone, key=lambda rung: (rung[0], -rung[1]))
    assert best in survivors
    fallen = [rung for rung in everyone if rung not in survivors]
    assert all((low[0], -low[1]) < (high[0], -high[1]) for low in fallen for high in survivors)
    assert goes_on((0.0, 9.0), [], keep)


def test_one_pruner_serves_both_kinds_of_trial() -> None:
    class Never(optuna.pruners.BasePruner):
        def prune(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> bool:
            raise AssertionError("a training was judged by its examples")

    study = optuna.create_study(pruner=StudyPruner(Never(), HalvingConfig(keep=0.5)))
    first, second = study.ask(), study.ask()
    for trial, score in ((first, 0.8), (second, 0.3)):
        trial.set_user_attr("slot", trial.number)
        trial.set_user_attr(TRAINING, True)
        trial.set_user_attr(RUNGS, [[score, 1.0, 10]])
    assert not first.should_prune()
    assert second.should_prune()
    second.set_user_attr(TRAINING, False)
    with pytest.raises(AssertionError, match="by its examples"):
        second.should_prune()


def test_a_training_is_no_rival_of_the_same_training_that_a_dead_worker_left() -> None:
    study = optuna.create_study(pruner=StudyPruner(optuna.pruners.NopPruner(), HalvingConfig(keep=0.4)))
    left, again = study.ask(), study.ask()
    for trial in (left, again):
        trial.set_user_attr("slot", 7)
        trial.set_user_attr(TRAINING, True)
    left.set_user_attr(RUNGS, [[0.9, 1.0, 10]])
    again.set_user_attr(RUNGS, [[0.1, 1.0, 10]])
    assert not again.should_prune()


def test_the_front_holds_what_nothing_beats_in_score_and_cost() -> None:
    trials = [
        record(0, 0.5, prompt_tokens=100, completion_tokens=10),
        record(1, 0.7, prompt_tokens=300, serving_tokens=90.0),
        record(2, 0.7, prompt_tokens=200, completion_tokens=10),
        record(3, 0.9, prompt_tokens=400, serving_tokens=300.0),
        record(4, 0.99, prompt_tokens=10, feasible=False, unmet={"latency_s": 0.1}),
        record(5, 0.95, state="raced_out", prompt_tokens=10),
    ]
    assert [trial.number for trial in pareto_front(trials)] == [1, 3]


def test_a_limit_on_what_an_lm_does_not_tell_is_refused() -> None:
    cost = ServingCost(120.0, 8.0, 0.2, 0.25, None, None)
    assert cost.beyond(ConstraintsConfig(prompt_tokens=100, parse_failure_rate=0.25)) == {
        "prompt_tokens": 20.0, "parse_failure_rate": 0.0,
    }  # fmt: skip
    with pytest.raises(ConfigError, match="memory_mb needs a local GGUF"):
        cost.beyond(ConstraintsConfig(memory_mb=10))
