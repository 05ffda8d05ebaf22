"""The metrics, as `po.metrics.answer_f1`; the one inner package that offers names. Defines nothing itself."""

from promptopt.metrics.base import Metric, Score
from promptopt.metrics.registry import (
    METRICS,
    answer_exact_match,
    answer_exact_match_ja,
    answer_f1,
    answer_f1_ja,
    field_match,
    get_metric,
    label_accuracy,
    numeric_answer,
    viggo,
)

__all__ = [
    "METRICS",
    "Metric",
    "Score",
    "answer_exact_match",
    "answer_exact_match_ja",
    "answer_f1",
    "answer_f1_ja",
    "field_match",
    "get_metric",
    "label_accuracy",
    "numeric_answer",
    "viggo",
]
