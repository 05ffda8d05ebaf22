"""The sampler of each trial, seeded so that a killed study goes on as the unbroken one would. Knows no storage."""

import hashlib
import warnings
from collections.abc import Mapping

import optuna
from pydantic import JsonValue


def seeded_sampler(
    seed: int, number: int, startup: int, parameter: str = "", given: Mapping[str, JsonValue] | None = None
) -> optuna.samplers.BaseSampler:
    """Return the sampler of the trial at slot `number`, or of one `parameter` of it; `given` ones are as given.

    Every trial, and within a trial every parameter that is drawn by itself, has a seed of its own, so that a study that
    was killed and started again proposes exactly what the unbroken one would have proposed.
    """
    digest = hashlib.sha256(f"{seed}:{number}:{parameter}".encode()).digest()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        # In groups: the recipe's parameters, which frozen trials lack, are modelled together too.
        sampler = optuna.samplers.TPESampler(
            seed=int.from_bytes(digest[:4], "big"), n_startup_trials=startup, group=True, multivariate=True
        )
        return optuna.samplers.PartialFixedSampler(dict(given), sampler) if given else sampler
