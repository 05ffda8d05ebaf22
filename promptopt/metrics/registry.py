"""Metrics by name: the ones that promptopt carries, and those a user names by import path. Scores nothing itself."""

import difflib
from collections.abc import Mapping
from types import MappingProxyType

from promptopt.errors import ConfigError
from promptopt.metrics.answers import ExactMatch, TokenF1
from promptopt.metrics.base import Metric
from promptopt.metrics.labels import FieldMatch, LabelAccuracy
from promptopt.metrics.meaning import MeaningMatch
from promptopt.metrics.numeric import NumericAnswer

answer_f1 = TokenF1()
answer_exact_match = ExactMatch()
answer_f1_ja = TokenF1(name="answer_f1_ja", language="ja")
answer_exact_match_ja = ExactMatch(name="answer_exact_match_ja", language="ja")
numeric_answer = NumericAnswer()
label_accuracy = LabelAccuracy()
field_match = FieldMatch()
viggo = MeaningMatch()

METRICS: Mapping[str, Metric] = MappingProxyType(
    {
        metric.name: metric
        for metric in (
            answer_f1,
            answer_exact_match,
            answer_f1_ja,
            answer_exact_match_ja,
            numeric_answer,
            label_accuracy,
            field_match,
            viggo,
        )
    }
)
"""Name -> metric, as an experiment's `metric:` names it."""


def get_metric(name: str) -> Metric:
    """Return the metric called `name`, or the one that the import path `module:name` leads to.

    Raises:
        ConfigError: there is no such metric, or the import path leads to something else.
    """
    if ":" in name:
        return _imported(name)
    if name in METRICS:
        return METRICS[name]
    close = difflib.get_close_matches(name, METRICS, n=1, cutoff=0.4)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise ConfigError(
        f"There is no metric {name!r}.{hint} Allowed: {', '.join(sorted(METRICS))}, or an import path `module:name` of "
        "a promptopt.metrics.base.Metric."
    )


def _imported(path: str) -> Metric:
    # Imported here: `import promptopt.metrics` alone should not load every config model.
    from promptopt.config.load import import_object

    found = import_object(path, what="metric")
    if isinstance(found, type) and issubclass(found, Metric):
        raise ConfigError(f"The metric {path!r} is a class. Name an instance, e.g. `my_metric = {found.__name__}()`.")
    if not isinstance(found, Metric):
        raise ConfigError(
            f"The metric {path!r} is a {type(found).__name__}. It must be an instance of promptopt.metrics.base.Metric."
        )
    return found
