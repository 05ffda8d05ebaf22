"""ViGGO meaning representations, `function(attribute[value, value], ...)`: parsed and compared. Knows no ontology."""

import re
from collections import Counter
from dataclasses import dataclass

from promptopt.errors import DataError
from promptopt.metrics.base import Fields, Metric, Score
from promptopt.metrics.values import feedback, first_field, text_of

_CALL = re.compile(r"\s*(\w+)\s*\((.*)\)\s*", re.DOTALL)
_ATTRIBUTE = re.compile(r"\s*(\w+)\s*\[([^\[\]]*)\]\s*(,|$)")


@dataclass(frozen=True)
class MeaningRepresentation:
    """A parsed meaning representation.

    Attributes:
        function: the dialogue act, e.g. "inform".
        attributes: name and its comma-separated values, in the order of the text; an empty `[]` has one value "".
    """

    function: str
    attributes: tuple[tuple[str, tuple[str, ...]], ...]

    def names(self) -> Counter[str]:
        """Return how often each attribute occurs."""
        return Counter(name for name, _ in self.attributes)

    def values(self) -> Counter[tuple[str, tuple[str, ...]]]:
        """Return the attributes with their values, both without order."""
        return Counter((name, tuple(sorted(values))) for name, values in self.attributes)


def parse_meaning(text: str) -> MeaningRepresentation | None:
    """Return the meaning representation in `text`, or None where it is not one. White space may be anywhere."""
    call = _CALL.fullmatch(text)
    if call is None:
        return None
    attributes, position, body = [], 0, call[2]
    while position < len(body.rstrip()):
        found = _ATTRIBUTE.match(body, position)
        if found is None:
            return None
        attributes.append((found[1], tuple(" ".join(value.split()) for value in found[2].split(","))))
        position = found.end()
    return MeaningRepresentation(call[1], tuple(attributes))


@dataclass(frozen=True)
class MeaningMatch(Metric):
    """1 where function, attributes and values all agree, whatever their order, else 0.

    Source: ViGGO (Juraska et al. 2019, arXiv 1910.12129), scored as published fine-tuning evaluations score it; case
    counts. Details: `function`, `attributes` (same names), `values` (same names with the same values), `strict` (the
    very same string, outer white space aside).

    Attributes:
        fields: the first of these that the example has holds the gold; the prediction uses the same name.
    """

    name: str = "viggo"
    fields: tuple[str, ...] = ("meaning_representation", "meaning", "mr")

    def score(self, example: Fields, prediction: Fields) -> Score:
        """Return whether the meaning is right.

        Raises:
            DataError: the gold is missing or is no meaning representation.
        """
        field = first_field(example, self.fields, self.name)
        gold_text, text = text_of(example.get(field)), text_of(prediction.get(field))
        gold, found = parse_meaning(gold_text), parse_meaning(text)
        if gold is None:
            raise DataError(
                f"The metric {self.name!r}: field {field!r} is not `function(attribute[value])`: {gold_text!r}"
            )
        details = {"function": 0.0, "attributes": 0.0, "values": 0.0}
        details["strict"] = float(text.strip() == gold_text.strip())
        if found is not None:
            details["function"] = float(found.function == gold.function)
            details["attributes"] = float(found.names() == gold.names())
            details["values"] = float(found.values() == gold.values())
        return Score(details["function"] * details["values"], feedback([gold_text], text), details)

    def requires(self) -> tuple[str, ...]:
        """Return the gold field if there is only one to look in."""
        return self.fields if len(self.fields) == 1 else ()
