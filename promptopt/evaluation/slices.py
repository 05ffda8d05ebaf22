"""Scores by a property of the examples: language, length, where the answer stands, kind of question. Runs no model.

A mean hides what it is a mean of: "lost in the middle" (Liu et al. 2023, arXiv 2307.03172) was found by slicing scores
by the position of the answer.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean

from pydantic import JsonValue

from promptopt.errors import ConfigError
from promptopt.evaluation.report_data import SliceLine, SliceTable
from promptopt.evaluation.statistics import paired_bootstrap
from promptopt.records import DataRow, ExampleRecord, Outcome

Labels = dict[str, dict[str, str]]
"""Slice name -> example id -> label."""

_GOLD_FIELDS = ("answers", "answer")
_QUESTION_FIELDS = ("question", "query")
_QUESTION_WORDS = {
    "en": ("how many", "how much", "who", "what", "when", "where", "which", "why", "how"),
    "ja": ("なぜ", "どうして", "いつ", "どこ", "だれ", "誰", "どの", "どれ", "いくつ", "いくら", "何人", "何年", "何"),
}
_FEWEST_VALUES, _MOST_VALUES = 2, 12


def slice_labels(rows: Sequence[DataRow], inputs: Sequence[str], fields: Sequence[str] = ()) -> Labels:
    """Return the label of every row in every slice that tells rows apart.

    Built in: `language` (by script), `length` (thirds of the input characters), `answer position` (third of the longest
    input in which a gold answer first stands), `question type` (the question's interrogative).

    Args:
        inputs: fields that the program is given.
        fields: further fields of the rows, e.g. `category`; their values are the labels.

    Raises:
        ConfigError: a row lacks one of `fields`.
    """
    found: Labels = {
        "language": {row.id: _language(_text(row, inputs)) for row in rows},
        "length": _lengths(rows, inputs),
        "answer position": _labelled(rows, lambda row: _answer_position(row, inputs)),
        "question type": _labelled(rows, _question_type),
    }
    for name in fields:
        for row in rows:
            if name not in row.fields:
                raise ConfigError(
                    f"report.slices names the field {name!r}, which row {row.id} lacks. It has: "
                    f"{', '.join(row.fields)}; map more columns under data.fields."
                )
        found[name] = {row.id: str(row.fields[name]) for row in rows}
    # A slice with one value says nothing, one with many says nothing about each.
    wanted = set(fields)
    return {
        name: labels
        for name, labels in found.items()
        if name in wanted or _FEWEST_VALUES <= len(set(labels.values())) <= _MOST_VALUES
    }


def slice_tables(labels: Labels, road: Mapping[str, Sequence[ExampleRecord]], seed: int) -> tuple[SliceTable, ...]:
    """Return, per slice, the mean score of each system on each label's examples; intervals are not corrected.

    Args:
        road: system name -> its records, in the order of the report's table.
    """
    scores = {name: _scores(records) for name, records in road.items()}
    return tuple(
        SliceTable(
            name=name,
            lines=tuple(
                _line(label, [row for row, own in by_row.items() if own == label], scores, seed)
                for label in sorted(set(by_row.values()))
            ),
        )
        for name, by_row in labels.items()
    )


def _line(label: str, rows: Sequence[str], scores: Mapping[str, Mapping[str, float]], seed: int) -> SliceLine:
    means = {
        name: fmean(own[row] for row in rows if row in own)
        for name, own in scores.items()
        if any(row in own for row in rows)
    }
    first, last = next(iter(scores.values())), list(scores.values())[-1]
    both = [row for row in rows if row in first and row in last]
    difference = None
    if len(scores) > 1 and len(both) > 1:
        difference = paired_bootstrap([first[row] for row in both], [last[row] for row in both], seed)
    return SliceLine(label=label, n=len(rows), means=means, difference=difference)


def _scores(records: Iterable[ExampleRecord]) -> dict[str, float]:
    return {record.example_id: record.score or 0.0 for record in records if record.outcome is not Outcome.UNSCORED}


def _text(row: DataRow, inputs: Sequence[str]) -> str:
    return "\n".join(str(row.fields[name]) for name in inputs if name in row.fields)


def _labelled(rows: Sequence[DataRow], label: Callable[[DataRow], str | None]) -> dict[str, str]:
    return {row.id: found for row in rows if (found := label(row)) is not None}


def _language(text: str) -> str:
    """Return "ja", "zh", or the script that most letters belong to."""
    counts: dict[str, int] = {}
    for character in text:
        if character.isalpha():
            script = unicodedata.name(character, "").split(" ")[0].split("-")[0]
            counts[script] = counts.get(script, 0) + 1
    if not counts:
        return "none"
    letters = sum(counts.values())
    kana = counts.get("HIRAGANA", 0) + counts.get("KATAKANA", 0)
    if 20 * kana > letters:
        return "ja"
    script = max(counts, key=lambda name: counts[name])
    return "zh" if script == "CJK" else script.lower()


def _lengths(rows: Sequence[DataRow], inputs: Sequence[str]) -> dict[str, str]:
    sizes = {row.id: len(_text(row, inputs)) for row in rows}
    ordered = sorted(sizes.values())
    first, second = ordered[(len(ordered) - 1) // 3], ordered[2 * (len(ordered) - 1) // 3]
    names = (f"1: up to {first} characters", f"2: up to {second} characters", f"3: up to {ordered[-1]} characters")
    return {row: names[(size > first) + (size > second)] for row, size in sizes.items()}


def _answer_position(row: DataRow, inputs: Sequence[str]) -> str | None:
    document = max((str(row.fields.get(name, "")) for name in inputs), key=len, default="")
    golds = next((_texts(row.fields[name]) for name in _GOLD_FIELDS if row.fields.get(name)), [])
    if not golds or len(document) < 2 * max(map(len, golds)):
        return None
    places = [place for gold in golds if gold and (place := document.find(gold)) >= 0]
    if not places:
        return "not in the document"
    return ("1: first third", "2: middle third", "3: last third")[min(2, 3 * min(places) // len(document))]


def _question_type(row: DataRow) -> str | None:
    text = next((str(row.fields[name]) for name in _QUESTION_FIELDS if name in row.fields), None)
    if text is None:
        return None
    for word in _QUESTION_WORDS["ja"]:
        if word in text:
            return word
    lower = text.lower()
    places = {word: at.start() for word in _QUESTION_WORDS["en"] if (at := re.search(rf"\b{word}\b", lower))}
    # Of two that begin at one place, the longer one: "how many", not "how".
    return min(places, key=lambda word: (places[word], -len(word))) if places else "other"


def _texts(value: JsonValue) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else [str(value)]
