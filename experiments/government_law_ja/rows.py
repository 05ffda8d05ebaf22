"""Rows of lawqa_jp: every question in its four orders of the options, the law it rests on beside it."""

import json

from promptopt.data.sources import find_data_file

ORIGIN = "https://github.com/digital-go-jp/lawqa_jp"
COLUMNS = {"law": "コンテキスト", "question": "問題文", "options": "選択肢", "label": "output", "case": "ファイル名"}


def questions(n: int, seed: int) -> list[dict[str, object]]:
    """Return the `n` shortest rows: the starter model reads 2,048 tokens. A question has one `case` in all orders."""
    lines = find_data_file("docqa_lawqa_jp/selection_randomized.jsonl", ORIGIN).read_text(encoding="utf-8").splitlines()
    rows = [{name: row[column] for name, column in COLUMNS.items()} for row in map(json.loads, lines)]
    return sorted(rows, key=lambda row: (len(row["law"]) + len(row["question"]) + len(row["options"]), row["case"]))[:n]
