"""Should a study's first recipes be spread over the space instead of left to the sampler? Simulated; trains nothing.

    python benchmarks/recipe_start.py [--studies 60] [--tuned 16]

Each simulated study has 12 frozen trials and two that tune with the start recipe, as promptopt's second phase begins.
Then the recipes are TPE's, as promptopt samples them, or the first N come from an additive recurrence over the unit
cube (Roberts 2018, an evenly spread sequence), for all parameters (`spread N`) or for the learning rate alone (`rate
N`). A recipe's true score is a parabola in the logarithm of learning rate times scale, with smaller effects of epochs,
batch, loss and rank; optimum and width are drawn per study. Printed: the true score of the recipe that had the best
noisy score so far, by number of tuned trials; mean over studies.
"""

import argparse
import hashlib
import math
import random
import statistics
import warnings
from collections.abc import Callable

import optuna

optuna.logging.set_verbosity(optuna.logging.ERROR)
warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)

Recipe = dict[str, float | int | str]
START: Recipe = {"rate": 2e-4, "rank": 16, "scale": 2.0, "epochs": 3, "batch": 8, "loss": "nll"}
FROZEN_TRIALS = 12
SHOWN_AFTER = (2, 4, 6, 8, 10, 12, 16)


def suggest(trial: optuna.Trial) -> Recipe:
    """Return a recipe from the sampler, over ranges like promptopt's defaults."""
    return {
        "rate": trial.suggest_float("rate", 2e-5, 2e-3, log=True),
        "rank": trial.suggest_int("rank", 4, 64, log=True),
        "scale": trial.suggest_float("scale", 0.5, 4, log=True),
        "epochs": trial.suggest_int("epochs", 1, 6),
        "batch": trial.suggest_categorical("batch", (8, 4, 16)),
        "loss": trial.suggest_categorical("loss", ("nll", "dft")),
    }


def spread(seed: int, number: int) -> Recipe:
    """Return the recipe at `number` of an evenly spread sequence."""
    parameters, ratio = 6, 2.0
    for _ in range(30):
        ratio = (1 + ratio) ** (1 / (parameters + 1))
    offsets = random.Random(seed)
    at = [(offsets.random() + (number + 1) * ratio ** -(axis + 1)) % 1 for axis in range(parameters)]
    return {
        "rate": 2e-5 * 100 ** at[0],
        "rank": round(4 * 16 ** at[1]),
        "scale": 0.5 * 8 ** at[2],
        "epochs": 1 + min(5, int(at[3] * 6)),
        "batch": (8, 4, 16)[int(at[4] * 3)],
        "loss": ("nll", "dft")[int(at[5] * 2)],
    }


def drawn_surface(draw: random.Random) -> Callable[[Recipe], float]:
    """Return recipe -> true score."""
    best = math.log(2e-4) + draw.uniform(-1.6, 2.0)
    width, epochs = draw.uniform(0.03, 0.08), draw.uniform(2, 6)
    batch, loss = draw.choice((8, 4, 16)), draw.choice(("nll", "dft"))

    def score(recipe: Recipe) -> float:
        off = math.log(float(recipe["rate"])) + 0.5 * math.log(float(recipe["scale"]) / 2) - best
        return (
            0.6 - width * off**2 - 0.006 * (float(recipe["epochs"]) - epochs) ** 2
            - 0.015 * (recipe["batch"] != batch) - 0.02 * (recipe["loss"] != loss)
            - 0.003 * abs(math.log(float(recipe["rank"]) / 16))
        )  # fmt: skip

    return score


def study_of(seed: int, way: Callable[[int, int], Recipe], tuned: int, noise: float) -> list[float]:
    """Return the true score of the best recipe so far after each tuned trial; `way` gives the parameters of each."""
    score, chance = drawn_surface(random.Random(seed)), random.Random(seed * 7 + 1)
    study = optuna.create_study(direction="maximize")
    seen_best, so_far = (-math.inf, -math.inf), []
    for number in range(FROZEN_TRIALS + tuned):
        kind = "frozen" if number < FROZEN_TRIALS else "tuned"
        digest = hashlib.sha256(f"{seed}:{number}".encode()).digest()
        sampler = optuna.samplers.TPESampler(
            seed=int.from_bytes(digest[:4], "big"), n_startup_trials=10, group=True, multivariate=True
        )
        fixed = {"weights": kind, **(way(seed, number - FROZEN_TRIALS) if kind == "tuned" else {})}
        study.sampler = optuna.samplers.PartialFixedSampler(fixed, sampler)
        trial = study.ask()
        trial.suggest_categorical("weights", ("frozen", "tuned"))
        trial.suggest_categorical("query_position", ("before", "after", "both"))
        if kind == "frozen":
            study.tell(trial, chance.gauss(0.3, 0.05))
            continue
        true = score(suggest(trial))
        seen = true + chance.gauss(0, noise)
        seen_best = max(seen_best, (seen, true))
        study.tell(trial, seen)
        so_far.append(seen_best[1])
    return so_far


def ways() -> dict[str, Callable[[int, int], Recipe]]:
    """Return name -> (seed, number of the tuned trial) -> what is given to the sampler."""

    def first(count: int, names: tuple[str, ...] | None) -> Callable[[int, int], Recipe]:
        def given(seed: int, number: int) -> Recipe:
            if number < 2:
                return START
            if number - 2 >= count:
                return {}
            found = spread(seed, number - 2)
            return found if names is None else {**START, **{name: found[name] for name in names}}

        return given

    return {
        "TPE": first(0, None),
        **{f"spread {count}": first(count, None) for count in (2, 4, 8)},
        "spread all": first(1000, None),
        **{f"rate {count}": first(count, ("rate",)) for count in (2, 4)},
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=60)
    parser.add_argument("--tuned", type=int, default=16)
    options = parser.parse_args()
    shown = [count for count in SHOWN_AFTER if count <= options.tuned]
    print("| noise | first recipes | " + " | ".join(f"after {count}" for count in shown) + " |")
    print("| ---: | --- |" + " ---: |" * len(shown))
    for noise in (0.01, 0.03):
        for name, way in ways().items():
            runs = [study_of(seed, way, options.tuned, noise) for seed in range(options.studies)]
            means = [statistics.mean(run[count - 1] for run in runs) for count in shown]
            print(f"| {noise} | {name} | " + " | ".join(f"{mean:.3f}" for mean in means) + " |", flush=True)


if __name__ == "__main__":
    main()
