"""Rows of GSM8K: the worked solution and its number in fields of their own."""

import json
import re

from promptopt.data.sources import find_data_file

_CALCULATOR = re.compile(r"<<[^>]*>>")
ORIGIN = "https://github.com/openai/grade-school-math"


def problems(n: int, seed: int) -> list[dict[str, object]]:
    """Return the first `n` problems; `<<48/2=24>>`, notes for a calculator, are left out of the solution."""
    lines = find_data_file("gsm8k/train.jsonl", ORIGIN).read_text(encoding="utf-8").splitlines()
    return [_problem(json.loads(line)) for line in lines[:n]]


def _problem(row: dict[str, str]) -> dict[str, object]:
    solution, _, answer = row["answer"].partition("####")
    return {"question": row["question"], "solution": _CALCULATOR.sub("", solution).strip(), "answer": answer.strip()}
