"""ViGGO meaning representations, `function(attribute[value, value], ...)`: parsed and compared. Knows no ontology."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

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


def slot_errors(gold: MeaningRepresentation, found: MeaningRepresentation | None) -> int:
    """Return how many attributes are missing, added, or have other values; without `found` all are missing."""
    if found is None:
        return len(gold.attributes)
    names, found_names = gold.names(), found.names()
    wrong = (names & found_names).total() - (gold.values() & found.values()).total()
    return wrong + (names - found_names).total() + (found_names - names).total()


@dataclass(frozen=True)
class MeaningMatch(Metric):
    """How far a predicted meaning representation is the gold one; case counts.

    Sources: ViGGO (Juraska et al. 2019, arXiv 1910.12129), scored as published fine-tuning evaluations score it; slot
    error rate as of Wen et al. 2015 (arXiv 1508.01745), with wrong values counted as that article's successors do:
    (missing + added + wrong) / slots of the gold. Details, whatever `counts` says: `function`, `attributes` (same
    names), `values` (same names with the same values), `strict` (the very same string, outer white space aside), and
    `slot_error_rate`, cut off at 1: the one detail of which less is better. `corpus` gives the slot error rate over all
    slots.

    Attributes:
        fields: the first of these that the example has holds the gold; the prediction uses the same name.
        counts: what the value is. "meaning": 1 where function, attributes and values all agree, whatever their order.
            "strict": 1 for the same string. "slots": 1 - slot error rate, whatever the function.
    """

    name: str = "viggo"
    fields: tuple[str, ...] = ("meaning_representation", "meaning", "mr")
    counts: Literal["meaning", "strict", "slots"] = "meaning"

    def score(self, example: Fields, prediction: Fields) -> Score:
        """Return how far the meaning is right.

        Raises:
            DataError: the gold is missing or is no meaning representation.
        """
        field, gold = self._gold(example)
        gold_text, text = text_of(example.get(field)), text_of(prediction.get(field))
        found = parse_meaning(text)
        details = {
            "function": float(found is not None and found.function == gold.function),
            "attributes": float(found is not None and found.names() == gold.names()),
            "values": float(found is not None and found.values() == gold.values()),
            "strict": float(text.strip() == gold_text.strip()),
            "slot_error_rate": _rate(slot_errors(gold, found), len(gold.attributes), found is None),
        }
        value = {
            "meaning": details["function"] * details["values"],
            "strict": details["strict"],
            "slots": 1.0 - details["slot_error_rate"],
        }[self.counts]
        return Score(value, feedback([gold_text], text), details)

    def corpus(self, pairs: Iterable[tuple[Fields, Fields]]) -> Mapping[str, float]:
        """Return the slot error rate over the slots of all examples, cut off at 1."""
        errors = slots = 0
        for example, prediction in pairs:
            field, gold = self._gold(example)
            errors += slot_errors(gold, parse_meaning(text_of(prediction.get(field))))
            slots += len(gold.attributes)
        return {"slot_error_rate": min(1.0, errors / slots)} if slots else {}

    def requires(self) -> tuple[str, ...]:
        """Return the gold field if there is only one to look in."""
        return self.fields if len(self.fields) == 1 else ()

    def requires_any(self) -> tuple[tuple[str, ...], ...]:
        """Return the gold fields if there are several to look in."""
        return (self.fields,) if len(self.fields) > 1 else ()

    def _gold(self, example: Fields) -> tuple[str, MeaningRepresentation]:
        field = first_field(example, self.fields, self.name)
        text = text_of(example.get(field))
        gold = parse_meaning(text)
        if gold is None:
            raise DataError(f"The metric {self.name!r}: field {field!r} is not `function(attribute[value])`: {text!r}")
        return field, gold


def _rate(errors: int, slots: int, nothing_found: bool) -> float:
    # Text that is no meaning representation is wrong throughout, even where the gold has no slots to miss.
    return 1.0 if nothing_found else min(1.0, errors / max(1, slots))
