"""What the values of one field look like: types, gaps, lengths, labels."""

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
from pydantic import Field, JsonValue

from promptopt.data.loaders import canonical_json
from promptopt.records import Record

TokenCounter = Callable[[list[str]], list[int]]
"""Texts -> tokens of each."""

_LONGEST_LABEL = 60
_MOST_LABELS = 200
_LABELS_SHOWN = 20
_FEWEST_ROWS_PER_LABEL = 2


class Quantiles(Record):
    """Of whole numbers; each but the mean is one of them."""

    minimum: int
    p10: int
    median: int
    p90: int
    p99: int
    maximum: int
    mean: float


class FieldReport(Record):
    """One field.

    Attributes:
        types: JSON type -> rows: "text", "number", "true/false", "list", "mapping".
        missing: rows where it is absent or null; empty: where it is an empty text, list or mapping.
        distinct: different values.
        characters: of texts; None where there are none.
        tokens: of texts; None without a tokenizer.
        labels: value -> rows, for a text of few different short values; the most frequent 20.
    """

    name: str
    types: dict[str, int]
    missing: int
    empty: int
    distinct: int
    characters: Quantiles | None = None
    tokens: Quantiles | None = None
    labels: dict[str, int] = Field(default_factory=dict)


def describe_field(name: str, values: Sequence[JsonValue], count_tokens: TokenCounter | None = None) -> FieldReport:
    """Return what `values`, one per row and None where missing, look like."""
    texts = [value for value in values if isinstance(value, str)]
    present = [value for value in values if value is not None]
    return FieldReport(
        name=name,
        types=dict(Counter(_type_of(value) for value in present).most_common()),
        missing=len(values) - len(present),
        empty=sum(value in ("", [], {}) for value in present),
        distinct=len({canonical_json(value) for value in present}),
        characters=quantiles(list(map(len, texts))),
        tokens=quantiles(count_tokens(texts)) if count_tokens and texts else None,
        labels=_labels(texts),
    )


def quantiles(numbers: Sequence[int]) -> Quantiles | None:
    """Return the quantiles of `numbers`; None where there are none."""
    if not numbers:
        return None
    cuts = np.quantile(numbers, [0, 0.1, 0.5, 0.9, 0.99, 1], method="inverted_cdf").tolist()
    minimum, p10, median, p90, p99, maximum = map(int, cuts)
    mean = float(np.mean(numbers))
    return Quantiles(minimum=minimum, p10=p10, median=median, p90=p90, p99=p99, maximum=maximum, mean=mean)


def _labels(texts: Sequence[str]) -> dict[str, int]:
    counts = Counter(texts)
    few = 0 < len(counts) <= min(_MOST_LABELS, len(texts) / _FEWEST_ROWS_PER_LABEL)
    if not few or any(len(text) > _LONGEST_LABEL for text in counts):
        return {}
    return dict(counts.most_common(_LABELS_SHOWN))


def _type_of(value: JsonValue) -> str:
    if isinstance(value, bool):
        return "true/false"
    names: dict[type, str] = {str: "text", int: "number", float: "number", list: "list", dict: "mapping"}
    return names[type(value)]
