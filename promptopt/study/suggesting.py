"""One parameter at a time, as Optuna asks for it. Knows no layout and no recipe."""

from collections.abc import Callable, Sequence
from typing import cast

import optuna
from pydantic import JsonValue

from promptopt.config.joint import NumberRange

Before = Callable[[str], None]
"""Called with a parameter's name before it is suggested."""


def suggest_choice(trial: optuna.Trial, name: str, values: Sequence[JsonValue]) -> JsonValue:
    """Return one of `values`."""
    return cast(JsonValue, trial.suggest_categorical(name, cast("tuple[str | bool | None, ...]", tuple(values))))


def suggest_number(trial: optuna.Trial, name: str, searched: NumberRange) -> int | float:
    """Return a number of the range; an integer where both ends are."""
    if searched.whole:
        return trial.suggest_int(name, int(searched.low), int(searched.high), log=searched.log)
    return trial.suggest_float(name, searched.low, searched.high, log=searched.log)


def suggest_index(trial: optuna.Trial, name: str, size: int) -> int:
    """Return an index into a pool of `size`; nothing is asked where there is one."""
    return int(trial.suggest_categorical(name, tuple(range(size)))) if size > 1 else 0
