"""What a program hands to its predictor: the prompt's side of an answer, found by running the program without a model.

For a dspy.Predict these are the row's fields; a program that retrieves, cuts or computes hands over something else.
"""

from collections.abc import Mapping
from typing import Any

import dspy
from pydantic import JsonValue

from promptopt.errors import ConfigError, PromptoptError
from promptopt.evaluation.answer import plain_value


class _Reached(BaseException):
    """A predictor was called. No Exception: a program that catches those must not catch this."""

    def __init__(self, name: str, inputs: Mapping[str, Any]) -> None:
        super().__init__(name)
        self.name, self.inputs = name, inputs


class GivenInputs:
    """Runs copies of one program up to its first predictor call."""

    def __init__(self, program: dspy.Module) -> None:
        self._program = program.deepcopy()
        for name, predictor in self._program.named_predictors():
            predictor.forward = _stop_at(name)

    def of(self, inputs: Mapping[str, JsonValue]) -> tuple[str, dict[str, JsonValue]]:
        """Return the name of the first predictor that is called for `inputs`, and what it is given, as JSON values.

        Raises:
            ConfigError: the program fails before, or ends without calling a predictor.
        """
        try:
            # Usage tracking would look for an LM.
            with dspy.context(track_usage=False):
                self._program(**inputs)
        except _Reached as reached:
            return reached.name, {key: plain_value(value) for key, value in reached.inputs.items()}
        except PromptoptError:
            raise
        except Exception as error:
            raise ConfigError(
                f"The program {type(self._program).__name__} failed before it called a predictor: "
                f"{type(error).__name__}: {error}."
            ) from error
        raise ConfigError(f"The program {type(self._program).__name__} answered without calling a predictor.")


def _stop_at(name: str) -> Any:
    def forward(**inputs: Any) -> dspy.Prediction:
        raise _Reached(name, inputs)

    return forward
