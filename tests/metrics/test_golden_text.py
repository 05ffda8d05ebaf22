"""Overlap, groundedness, choices and fields against figures of others and gold labels of real data."""

import json
from collections import Counter
from statistics import fmean

import pytest
from scipy.stats import mannwhitneyu

from promptopt import metrics
from promptopt.metrics import bleu, choice_letter, chrf, label_accuracy, rouge_1, rouge_2, rouge_l
from promptopt.metrics.choices import option_texts, order_agreement
from promptopt.metrics.grounding import Groundedness
from promptopt.metrics.labels import normalise_value
from promptopt.metrics.structured import FieldF1
from tests.data_folder import data_file, read_jsonl_file


def test_bleu_chrf_and_rouge_of_130_pairs() -> None:
    compared = 0
    for row in read_jsonl_file("metrics_golden/bleu_rouge_chrf.jsonl"):
        example, prediction = {"reference": row["reference"]}, {"answer": row["prediction"]}
        assert bleu(example, prediction) == pytest.approx(row["bleu_sentence"] / 100, abs=1e-6), row["id"]
        assert chrf(example, prediction) == pytest.approx(row["chrf"] / 100, abs=1e-6), row["id"]
        for metric, variant in ((rouge_1, "rouge1"), (rouge_2, "rouge2"), (rouge_l, "rougeL")):
            assert metric(example, prediction) == pytest.approx(row["rouge"][variant][2], abs=1e-6), row["id"]
        compared += 1
    assert compared == 130


def test_corpus_bleu_of_430_responses_is_0_268739() -> None:
    pairs = [
        ({"reference": row["knowledge"]}, {"answer": row["response"]})
        for row in read_jsonl_file("halluc_begin/begin_wow_dev.jsonl")
    ]
    assert len(pairs) == 430
    assert bleu.corpus(pairs)["bleu"] == pytest.approx(0.268739, abs=5e-7)


def auroc(positive: list[float], negative: list[float]) -> float:
    return float(mannwhitneyu(positive, negative).statistic) / (len(positive) * len(negative))


def test_begin_auroc_of_groundedness_is_0_555_and_of_word_overlap_0_947() -> None:
    """Made-up facts are a small part of BEGIN's hallucinations: 30 of 250 are found, with 2 false alarms in 180."""
    metric = Groundedness(input_fields=("knowledge",), prediction_field="response")
    rows = list(read_jsonl_file("halluc_begin/begin_wow_dev.jsonl"))
    scores = [metric.score(row, row) for row in rows]
    attributable = [row["begin_label"] == "Fully attributable" for row in rows]
    values = {
        kind: [score.value or 0.0 for score, label in zip(scores, attributable, strict=True) if label is kind]
        for kind in (True, False)
    }
    overlaps = {
        kind: [score.details["overlap"] for score, label in zip(scores, attributable, strict=True) if label is kind]
        for kind in (True, False)
    }
    assert auroc(values[True], values[False]) == pytest.approx(0.555, abs=5e-4)
    assert auroc(overlaps[True], overlaps[False]) == pytest.approx(0.947, abs=5e-4)
    assert Counter(
        (score.details["hallucinated"], label) for score, label in zip(scores, attributable, strict=True)
    ) == {(1.0, False): 30, (1.0, True): 2, (0.0, False): 220, (0.0, True): 178}


def test_lawqa_320_gold_letters_agree_across_4_orders_and_always_a_does_not() -> None:
    rows = list(read_jsonl_file("docqa_lawqa_jp/selection_randomized.jsonl"))
    assert len(rows) == 320
    assert all(choice_letter(row, {"answer": f"答えは{row['output']}です。"}) == 1.0 for row in rows)
    assert sum(choice_letter(row, {"answer": "a"}) for row in rows) == 80
    assert {tuple(option_texts(row["選択肢"])) for row in rows} == {("a", "b", "c", "d")}
    gold = order_agreement((row["ファイル名"], row["選択肢"], row["output"]) for row in rows)
    assert (gold.questions, gold.all_same, gold.pairwise) == (80, 1.0, 1.0)
    always_a = order_agreement((row["ファイル名"], row["選択肢"], "a") for row in rows)
    assert (always_a.all_same, always_a.pairwise) == (0.0, 0.0)


def test_restaurant8k_1024_gold_spans_score_themselves() -> None:
    metric = FieldF1(within="slots")
    rows = []
    for row in json.loads(data_file("extract_restaurant8k/train_3.json").read_text(encoding="utf-8")):
        text = row["userInput"]["text"]
        spans = {label["slot"]: label["valueSpan"] for label in row.get("labels", [])}
        rows.append({"slots": {slot: text[at.get("startIndex", 0) : at["endIndex"]] for slot, at in spans.items()}})
    assert len(rows) == 1024
    assert all(metric(row, {"slots": json.dumps(row["slots"])}) == 1.0 for row in rows)
    assert metric.corpus((row, row) for row in rows)["f1"] == 1.0
    nothing = [(row, {"slots": "{}"}) for row in rows]
    assert sum(metric(*pair) for pair in nothing) == 363  # those without any slot
    assert metric.corpus(nothing)["f1"] == 0.0


def test_banking77_labels_stay_77_after_normalisation() -> None:
    labels = json.loads(data_file("cls_banking77/categories.json").read_text(encoding="utf-8"))
    assert len({normalise_value(label) for label in labels}) == 77
    assert all(label_accuracy({"label": label}, {"label": f'"{label}".'}) == 1.0 for label in labels)


def test_jsquad_humans_have_word_rouge_0_785_where_character_f1_is_0_813() -> None:
    """No published figure: MeCab's words, pinned beside the published characters of the same 200 answers."""
    rows = list(read_jsonl_file("metrics_golden/jsquad_human_loo_valid.jsonl"))
    rouge = [metrics.rouge_1_ja({"answers": row["golds"]}, {"answer": row["prediction"]}) for row in rows]
    assert fmean(rouge) == pytest.approx(0.785, abs=5e-4)
    assert fmean(row["f1"] for row in rows) == pytest.approx(0.813, abs=5e-4)
