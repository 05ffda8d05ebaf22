"""DSPy metrics, plain functions, as Metrics."""

from collections.abc import Callable, Mapping

from promptopt.errors import DataError
from promptopt.metrics.base import Fields, Metric, Score


class PlainMetric(Metric):
    """A function `(example, prediction, trace=None) -> number in [0, 1] or bool`, as DSPy writes metrics."""

    def __init__(self, function: Callable[..., float | bool]) -> None:
        self.name = getattr(function, "__name__", type(function).__name__)
        self.function = function

    def score(self, example: Fields, prediction: Fields) -> Score:
        """Return the function's verdict.

        Raises:
            DataError: the function returned something outside [0, 1].
        """
        value = float(self.function(_with_attributes(example), _with_attributes(prediction)))
        if not 0.0 <= value <= 1.0:
            raise DataError(
                f"The metric {self.name!r} returned {value!r}. A metric returns a number in [0, 1], or a bool."
            )
        return Score(value)


def _with_attributes(fields: Fields) -> Fields:
    # DSPy's metrics read `example.answer`; rows and gold answers are plain mappings.
    if not isinstance(fields, Mapping):
        return fields
    import dspy

    with_attributes: Fields = dspy.Example(**fields)
    return with_attributes


def as_metric(metric: Metric | Callable[..., float | bool]) -> Metric:
    """Return `metric` itself if it is a Metric, else the function wrapped."""
    return metric if isinstance(metric, Metric) else PlainMetric(metric)
