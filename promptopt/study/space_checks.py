"""What is wrong with a space, said before a trial runs. Knows parameters and values, no prompts."""

import difflib
from collections.abc import Mapping

from pydantic import JsonValue

from promptopt.config.joint import NumberRange, Searched
from promptopt.errors import ConfigError


def check_fixed(fixed: Mapping[str, JsonValue], parameters: Mapping[str, Searched]) -> None:
    """Pass if every fixed parameter is searched and may have its value.

    Raises:
        ConfigError: one is unknown or out of range.
    """
    for name, value in fixed.items():
        if name not in parameters:
            close = difflib.get_close_matches(name, parameters, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise ConfigError(
                f"search.fixed names {name!r}, which this study does not search.{hint} Searched: "
                f"{', '.join(sorted(parameters)) or '(nothing)'}."
            )
        if name == "weights" and value == "frozen":
            raise ConfigError(
                "search.fixed.weights is 'frozen', but the study searches weights. To search prompts alone, set "
                "search.weights: null."
            )
        allowed = parameters[name]
        # True == 1 in Python, and is another value here.
        inside = value in allowed if isinstance(allowed, NumberRange) else (type(value), value) in _typed(allowed)
        if not inside:
            said = (
                f"{allowed.low} to {allowed.high}"
                if isinstance(allowed, NumberRange)
                else ", ".join(map(repr, allowed))
            )
            raise ConfigError(f"search.fixed.{name} is {value!r}; it is searched in {said}. Fix it to one of these.")


def _typed(values: tuple[JsonValue, ...]) -> list[tuple[type, JsonValue]]:
    return [(type(value), value) for value in values]
