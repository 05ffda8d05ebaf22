"""Answers that people called right or wrong, to calibrate judges on. Knows no judge.

EVOUNA (Wang et al. 2023, "Evaluating Open-QA Evaluation"): five systems' answers to questions, with human verdicts.
BEGIN (Dziri et al. 2022): responses to messages on the basis of a piece of knowledge, labelled attributable or not.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from promptopt.data.sources import find_data_file, jsonl_rows, read_text
from promptopt.errors import DataError

EVOUNA, BEGIN = "judge_evouna/TQ.jsonl", "halluc_begin/begin_wow_dev.jsonl"
EVOUNA_SYSTEMS = ("fid", "gpt35", "chatgpt", "gpt4", "newbing")
_BEGIN_LABELS = {"Fully attributable": True, "Not fully attributable": False}


@dataclass(frozen=True)
class JudgedAnswer:
    """One answer.

    Attributes:
        example: the fields that a judge reads of an example, e.g. `question`, `reference_answer`, `context`.
        right: what people say.
        source: which system answered, where that is known.
    """

    id: str
    example: dict[str, JsonValue]
    answer: str
    right: bool
    source: str = ""


def judged_answers(name: str) -> list[JudgedAnswer]:
    """Return the labelled answers of "evouna", "begin" or a JSONL file, in an order that is random and always the same.

    The first n of them are so a fair sample. A line of a file holds `answer`, `label` (true or false), and what the
    judge needs: `question`, `reference_answer`, `context`, `criteria`, `extras`.

    Raises:
        DataError: the file is missing, or a line lacks a field; the message names both.
    """
    if name == "evouna":
        found = list(_evouna(find_data_file(EVOUNA)))
    elif name == "begin":
        found = list(_begin(find_data_file(BEGIN)))
    else:
        found = list(_own(find_data_file(name)))
    if not found:
        raise DataError(f"{name} holds no labelled answer.")
    return sorted(found, key=lambda one: hashlib.sha256(one.id.encode()).digest())


def _evouna(path: Path) -> Iterator[JudgedAnswer]:
    for line in read_text(path).split("\n"):
        if not line.strip():
            continue
        # Missing answers and verdicts are NaN there, which `jsonl_rows` refuses.
        row = json.loads(line)
        if row["improper"]:
            continue
        example = {"question": row["question"], "reference_answer": row["golden_answer"].split("/")}
        for system in EVOUNA_SYSTEMS:
            answer, verdict = row[f"answer_{system}"], row[f"judge_{system}"]
            if isinstance(answer, str) and isinstance(verdict, bool):
                yield JudgedAnswer(f"{row['id']} {system}", dict(example), answer, verdict, system)


def _begin(path: Path) -> Iterator[JudgedAnswer]:
    for number, raw in enumerate(jsonl_rows(path, read_text(path)), start=1):
        row: dict[str, Any] = raw.columns or {}
        example = {"context": row["knowledge"], "message": row["message"]}
        right = _BEGIN_LABELS[row["begin_label"]]
        yield JudgedAnswer(f"begin {number}", example, row["response"], right, row["model_name"])


def _own(path: Path) -> Iterator[JudgedAnswer]:
    for raw in jsonl_rows(path, read_text(path)):
        if raw.columns is None:
            raise DataError(f"{raw.place}: {raw.problem}")
        row = dict(raw.columns)
        answer, label = row.pop("answer", None), row.pop("label", None)
        if not isinstance(answer, str):
            raise DataError(f"{raw.place}: field 'answer' is {answer!r}; it must be the text that people judged.")
        if label not in (True, False):
            raise DataError(f"{raw.place}: field 'label' is {label!r}; allowed are true (right) and false (wrong).")
        example: dict[str, JsonValue] = json.loads(json.dumps(row))
        content = json.dumps([example, answer], sort_keys=True, ensure_ascii=False)
        # The line too: the same answer may have been labelled twice.
        digest = hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:16]
        yield JudgedAnswer(f"{digest} {raw.place.rpartition(' ')[2]}", example, answer, bool(label))
