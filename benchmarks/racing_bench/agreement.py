"""Proof that the simulation decides as promptopt's and Optuna's pruners do: the same tables through a real study."""

import warnings
from itertools import product

import numpy as np
import optuna
from racing_bench.paths import wilcoxon_path
from racing_bench.race import Outcome, Race, Rule, run
from racing_bench.tables import Scores, synthetic
from scipy import stats

from promptopt.config.experiment import RacingConfig
from promptopt.study.pruning import is_look, look_points, raced_out_value, racing_pruner


def real_race(scores: Scores, rule: Rule) -> Outcome:
    """Race the table in a real study, step by step, as `study.objective` does it."""
    config, examples = rule.config, scores.shape[1]
    if rule.kind == "ahead":
        pruner = racing_pruner(config, examples)
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            pruner = optuna.pruners.WilcoxonPruner(
                p_threshold=rule.threshold(examples), n_startup_steps=config.min_examples
            )
    study = optuna.create_study(direction="maximize", pruner=pruner)
    seen, whole = [], {}
    for candidate, row in enumerate(scores.tolist()):
        trial, noted = study.ask(), {}
        value = None
        for step, score in enumerate(row):
            trial.report(score, step)
            noted[step] = score
            if step + 1 < examples and is_look(config, step + 1) and trial.should_prune():
                value = raced_out_value(noted, study.best_trial.intermediate_values)
                break
        seen.append(len(noted))
        if value is None:
            value = whole[candidate] = sum(row) / examples
        study.tell(trial, value)
    return Outcome(tuple(seen), max(whole, key=lambda candidate: (whole[candidate], -candidate)))


def check_races(seeds: int) -> tuple[int, int]:
    """Return how many trials of how many are stopped after the same example by both."""
    configs = [RacingConfig(), RacingConfig(p_threshold=0.4, min_examples=14, block=4)]
    agreed, trials = 0, 0
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    for kind, config in product(("wilcoxon", "ahead"), configs):
        for table in (synthetic(False, 0.02, 80, 12), synthetic(True, 0.02, 48, 12)):
            for seed in range(seeds):
                scores = table.draw(seed)
                race = Race(scores, np.array(look_points(config, table.examples)))
                fast, real = run(race, Rule(kind, config)), real_race(scores, Rule(kind, config))
                agreed += sum(a == b for a, b in zip(fast.seen, real.seen, strict=True))
                trials += len(scores)
    return agreed, trials


def check_p_values(count: int) -> float:
    """Return the largest distance between our p values and scipy's over random differences of many kinds."""
    rng, distances = np.random.default_rng(0), []
    for number in range(count):
        k = int(rng.integers(2, 100))
        kinds = [rng.integers(-1, 2, k), rng.integers(-3, 4, k) / 3, rng.standard_normal(k)]
        # scipy enumerates ties up to 13 examples, which takes up to a second: few of those.
        differences = kinds[number % 3] if k > 13 or number % 20 == 0 else kinds[2]
        differences = np.asarray(differences, dtype=float)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            expected = stats.wilcoxon(differences, alternative="less", zero_method="zsplit").pvalue
        found = wilcoxon_path(differences, np.array([k]))[0]
        distances.append(abs(found - (1.0 if np.isnan(expected) else expected)))
    return float(np.max(distances))
