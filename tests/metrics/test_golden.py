"""Metrics against figures of others: five SQuAD systems, JSQuAD annotators, GSM8K verdicts, ViGGO's files."""

import csv
import io
from itertools import chain

import pytest

from promptopt.metrics import (
    answer_exact_match,
    answer_exact_match_ja,
    answer_f1,
    answer_f1_ja,
    numeric_answer,
    viggo,
)
from promptopt.metrics.meaning import parse_meaning
from tests.data_folder import data_file, read_jsonl_file


def test_squad_scores_of_five_systems() -> None:
    compared = 0
    for row in read_jsonl_file("docqa_xquad/scored_predictions.jsonl"):
        for system in row["predictions"].values():
            score = answer_f1.score(row, {"answer": system["text"]})
            assert score.value == pytest.approx(system["f1"], abs=5e-7), (row["answers"], system)  # rounded to 6 digits
            assert answer_exact_match(row, {"answer": system["text"]}) == system["em"] == score.details["exact_match"]
            compared += 1
    assert compared == 3114  # of 623 x 5: one answer of one system is not in the file


def test_jsquad_human_agreement() -> None:
    rows = list(read_jsonl_file("metrics_golden/jsquad_human_loo_valid.jsonl"))
    for row in rows:
        example, prediction = {"answers": row["golds"]}, {"answer": row["prediction"]}
        assert answer_f1_ja(example, prediction) == pytest.approx(row["f1"], abs=5e-7), row
        assert answer_exact_match_ja(example, prediction) == row["em"], row
    assert len(rows) == 200


def test_gsm8k_verdicts() -> None:
    compared = 0
    for row in read_jsonl_file("gsm8k/scored_model_solutions_100.jsonl"):
        for solution in row.values():
            if isinstance(solution, dict):
                value = numeric_answer({"answer": row["ground_truth"]}, {"answer": solution["solution"]})
                assert value == solution["is_correct"], (row["ground_truth"], solution)
                compared += 1
    assert compared == 400


def test_gsm8k_gold_answers_score_themselves() -> None:
    for row in read_jsonl_file("gsm8k/train.jsonl"):
        number = row["answer"].rsplit("####", 1)[1].strip()
        assert numeric_answer(row, {"answer": f"The answer is {number}."}) == 1.0, row


def test_all_viggo_representations_parse() -> None:
    files = [data_file("viggo/train.csv"), data_file("viggo/valid.csv")]
    rows = list(
        chain.from_iterable(csv.DictReader(io.StringIO(file.read_text(encoding="utf-8-sig"))) for file in files)
    )
    for row in rows:
        parsed = parse_meaning(row["mr"])
        assert parsed is not None, row["mr"]
        backwards = ", ".join(f"{name}[{', '.join(values[::-1])}]" for name, values in parsed.attributes[::-1])
        score = viggo.score(row, {"mr": f"{parsed.function}({backwards})"})
        assert score.value == 1.0, row["mr"]
    assert len(rows) == 5103 + 714
