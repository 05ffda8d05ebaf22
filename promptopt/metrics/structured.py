"""Structured outputs scored by field: precision, recall and F1 of (field, value) pairs. Knows no data set."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from promptopt.errors import DataError
from promptopt.metrics.base import Fields, Metric, Score
from promptopt.metrics.json_text import read_json_text
from promptopt.metrics.labels import normalise_value
from promptopt.metrics.values import field_names, first_field, has_field

Pairs = Counter[tuple[str, str]]


@dataclass(frozen=True)
class FieldF1(Metric):
    """F1 of the (field, value) pairs that are there, after `normalise_value`; a field left empty is no pair.

    So a value where the gold has none costs precision, a missing one costs recall, and an example without any value is
    right where nothing is predicted. Objects count by the path to each value, lists by their items without order.
    Details: `precision`, `recall` and `exact` (all pairs right). `corpus` gives precision, recall and F1 over all pairs
    of all examples (micro-averaged), as slot filling is reported.

    Source: slot F1 as in Restaurants-8k (Coope et al. 2020, arXiv 2005.08866), on values rather than character spans.

    Attributes:
        fields: the fields compared; () = every field of the prediction that the example has too.
        within: name of the one field that holds the whole object, in the example and in the prediction, as a mapping or
            as JSON text; None where the program has an output field per value.
    """

    name: str = "field_f1"
    fields: tuple[str, ...] = ()
    within: str | None = None

    def score(self, example: Fields, prediction: Fields) -> Score:
        """Return the F1 of the pairs.

        Raises:
            DataError: the example lacks a field that is compared, or its object is no object.
        """
        gold, found = self._pairs(example, prediction)
        if found is None:
            return Score(0.0, "the prediction has no fields", {"precision": 0.0, "recall": 0.0, "exact": 0.0})
        details = dict(zip(("precision", "recall", "f1"), _rates(gold, found), strict=True))
        value = details.pop("f1")
        details["exact"] = float(gold == found)
        missing, added = gold - found, found - gold
        said = [f"missing or other: {_line(missing)}"] * bool(missing) + [f"not expected: {_line(added)}"] * bool(added)
        return Score(value, "; ".join(said) or "all fields are right", details)

    def corpus(self, pairs: Iterable[tuple[Fields, Fields]]) -> Mapping[str, float]:
        """Return `precision`, `recall` and `f1` over the pairs of all examples."""
        hits = golds = founds = 0
        for example, prediction in pairs:
            gold, found = self._pairs(example, prediction)
            hits += (gold & found).total() if found else 0
            golds += gold.total()
            founds += found.total() if found else 0
        if not golds and not founds:
            return {}
        precision, recall = hits / max(1, founds), hits / max(1, golds)
        return {"precision": precision, "recall": recall, "f1": 2 * hits / max(1, golds + founds)}

    def requires(self) -> tuple[str, ...]:
        """Return the fields that were named."""
        return (self.within,) if self.within else self.fields

    def _pairs(self, example: Fields, prediction: Fields) -> tuple[Pairs, Pairs | None]:
        """Return the pairs of the example and of the prediction; None where the prediction holds no object at all."""
        if self.within:
            gold = _object(example.get(first_field(example, (self.within,), self.name)))
            if gold is None:
                raise DataError(f"The metric {self.name!r}: field {self.within!r} of the example is not an object.")
            predicted = _object(prediction.get(self.within))
            names = self.fields or tuple(dict.fromkeys((*gold, *(predicted or {}))))
            found = None if predicted is None else _pairs_of(predicted, names)
            return _pairs_of(gold, names), found
        names = self.fields or tuple(name for name in field_names(prediction) if has_field(example, name))
        missing = [name for name in names if not has_field(example, name)]
        if missing or (not names and field_names(prediction)):
            raise DataError(
                f"The metric {self.name!r} needs fields {missing or sorted(field_names(prediction))} of an example; "
                f"this one has {sorted(field_names(example))}. Map them under `data.fields`."
            )
        gone = not any(has_field(prediction, name) for name in names)
        return _pairs_of(example, names), None if gone else _pairs_of(prediction, names)


def _rates(gold: Pairs, found: Pairs) -> tuple[float, float, float]:
    if not gold or not found:
        same = float(not gold and not found)
        return same, same, same
    hits = (gold & found).total()
    precision, recall = hits / found.total(), hits / gold.total()
    return precision, recall, 2 * hits / (found.total() + gold.total())


def _pairs_of(fields: Fields, names: Iterable[str]) -> Pairs:
    return Counter(pair for name in names for pair in _leaves(name, fields.get(name)))


def _leaves(path: str, value: object) -> Iterator[tuple[str, str]]:
    value = _plain(value)
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _leaves(f"{path}.{key}", item)
    elif isinstance(value, list | tuple | set | frozenset):
        for item in value:
            yield from _leaves(path, item)
    elif normal := normalise_value(value):
        yield path, normal


def _plain(value: object) -> object:
    dump = getattr(value, "model_dump", None)  # a pydantic model, as DSPy parses typed outputs
    return dump() if callable(dump) and not isinstance(value, type) else value


def _object(value: object) -> dict[str, Any] | None:
    value = _plain(value)
    if isinstance(value, str):
        value = read_json_text(value).value
    return {str(key): item for key, item in value.items()} if isinstance(value, Mapping) else None


def _line(pairs: Pairs) -> str:
    line = ", ".join(f"{name}={value!r}" for name, value in sorted(pairs))
    return " ".join(line.split())[:300]
