"""Classification and extraction outputs compared after normalisation. Knows no data set."""

import json
import unicodedata
from dataclasses import dataclass

from promptopt.errors import DataError
from promptopt.metrics.base import Fields, Metric, Score
from promptopt.metrics.values import feedback, field_names, first_field, has_field, text_of


def normalise_value(value: object) -> str:
    """Return `value` as text to compare: NFKC, case folded, white space collapsed.

    9, 9.0 and "9" are equal; None, "" and an empty list are equal; lists are compared without order, mappings by key.
    """
    if isinstance(value, list | tuple | set | frozenset):
        return json.dumps(sorted(normalise_value(item) for item in value)) if value else ""
    if isinstance(value, dict):
        items = {str(key): normalise_value(item) for key, item in value.items()}
        return json.dumps(items, sort_keys=True) if items else ""
    return " ".join(unicodedata.normalize("NFKC", text_of(value)).casefold().split())


@dataclass(frozen=True)
class LabelAccuracy(Metric):
    """1 where the predicted label is the gold label, else 0.

    Beyond `normalise_value`, quotes around the label and a full stop behind it do not count: they are punctuation of
    the sentence that a model writes, not part of the label. Source: plain accuracy, as for Banking77 (Casanueva et al.
    2020, arXiv 2003.04807).
    """

    name: str = "label_accuracy"
    prediction_field: str = "label"
    gold_field: str = "label"

    def score(self, example: Fields, prediction: Fields) -> Score:
        """Return whether the label is right."""
        gold = text_of(example.get(first_field(example, (self.gold_field,), self.name)))
        text = text_of(prediction.get(self.prediction_field))
        return Score(float(_bare(text) == _bare(gold)), feedback([gold], text))

    def requires(self) -> tuple[str, ...]:
        """Return the gold field."""
        return (self.gold_field,)


def _bare(text: str) -> str:
    return normalise_value(text).rstrip(".。").strip("\"'`“”‘’「」 ").rstrip(".。")


@dataclass(frozen=True)
class FieldMatch(Metric):
    """Share of output fields that are exactly right after `normalise_value`; one detail per field.

    Source: field-level exact match, as slot accuracy in Restaurants-8k (Coope et al. 2020, arXiv 2005.08866), but on
    values rather than character spans.

    Attributes:
        fields: the fields compared; () = every field of the prediction that the example has too, so that helper
            outputs such as `reasoning` do not count.
    """

    name: str = "field_match"
    fields: tuple[str, ...] = ()

    def score(self, example: Fields, prediction: Fields) -> Score:
        """Return the share of fields that are right.

        Raises:
            DataError: the example lacks one of `fields`, or has none of the prediction's fields.
        """
        predicted = field_names(prediction)
        if not self.fields and not predicted:
            return Score(0.0, "the prediction has no fields")
        names = self.fields or tuple(name for name in predicted if has_field(example, name))
        missing = [name for name in names if not has_field(example, name)]
        if missing or not names:
            raise DataError(
                f"The metric {self.name!r} needs fields {missing or sorted(predicted)} of an example; this one has "
                f"{sorted(field_names(example))}. Map them under `data.fields`."
            )
        right = {
            name: float(normalise_value(prediction.get(name)) == normalise_value(example.get(name))) for name in names
        }
        wrong = [name for name in names if not right[name]]
        lines = [f"{name}: {feedback([text_of(example.get(name))], text_of(prediction.get(name)))}" for name in wrong]
        return Score(sum(right.values()) / len(right), " | ".join(lines) or "all fields are right", right)

    def requires(self) -> tuple[str, ...]:
        """Return the fields that were named."""
        return self.fields
