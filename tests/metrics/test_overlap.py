"""BLEU, chrF, ROUGE and n-grams: their rules; golden values are in test_golden.py."""

import pytest

from promptopt import metrics
from promptopt.errors import MissingExtraError
from promptopt.metrics import tokens
from promptopt.metrics.overlap import Bleu, NgramSimilarity, Rouge
from promptopt.metrics.tokens import words

OVERLAP = [metrics.bleu, metrics.bleu_ja, metrics.chrf, metrics.rouge_l, metrics.rouge_l_ja, metrics.ngram_similarity]
each_metric = pytest.mark.parametrize("metric", OVERLAP, ids=lambda metric: metric.name)


def test_words() -> None:
    assert words("Ｔhe U.S. — it's 5%.") == ["the", "u", "s", "it", "s", "5"]
    assert words("猫が、畳の上で\n寝ている。", "ja") == ["猫", "が", "畳", "の", "上", "で", "寝", "て", "いる"]


@each_metric
def test_best_reference_counts(metric: metrics.Metric) -> None:
    one = metric.score({"references": ["other", "東京 the cat sat"]}, {"answer": "東京 the cat"}).value
    assert one is not None
    assert 0.3 < one < 1.0
    assert one >= metric({"references": ["other"]}, {"answer": "東京 the cat"})


@each_metric
def test_empty_reference_wants_an_empty_text(metric: metrics.Metric) -> None:
    assert metric({"references": []}, {"answer": ""}) == 1.0
    assert metric({"references": []}, {"answer": "x"}) == 0.0
    assert metric({"reference": "x"}, {"answer": ""}) == 0.0


@each_metric
def test_text_without_words_is_no_match_of_words(metric: metrics.Metric) -> None:
    assert metric({"reference": "cat"}, {"answer": "…"}) == 0.0


def test_rouge_variants() -> None:
    row, prediction = {"answer": "the cat sat on the mat"}, {"answer": "on the mat sat a cat"}
    score = metrics.rouge_1.score(row, prediction)
    assert score.details == {
        "rouge1": pytest.approx(10 / 12),
        "rouge2": pytest.approx(4 / 10),
        "rougeL": pytest.approx(6 / 12),
    }
    assert [score.value, metrics.rouge_2(row, prediction), metrics.rouge_l(row, prediction)] == [
        *score.details.values()
    ]


def test_japanese_rouge_counts_words_of_japanese() -> None:
    row, prediction = {"answer": "東京都に住む"}, {"answer": "京都に住む"}
    assert metrics.rouge_1(row, prediction) == 0.0  # rouge-score's own tokenizer drops every Japanese letter
    assert metrics.rouge_1_ja(row, prediction) == pytest.approx(2 * 2 / (4 + 3))  # に 住む


def test_ngram_similarity() -> None:
    score = metrics.ngram_similarity.score({"answer": "a b c d"}, {"answer": "a b c x"})
    assert score.details == {"1gram": 3 / 4, "2gram": pytest.approx(2 / 3), "3gram": 1 / 2}
    assert score.value == pytest.approx((3 / 4 + 2 / 3 + 1 / 2) / 3)
    assert metrics.ngram_similarity.score({"answer": "a"}, {"answer": "A!"}).details == {"1gram": 1.0}
    assert NgramSimilarity(longest=1)({"answer": "b a"}, {"answer": "a b"}) == 1.0


def test_corpus_bleu_takes_any_number_of_references() -> None:
    pairs = [
        ({"references": ["the cat sat on the mat", "a cat sat there"]}, {"answer": "the cat sat on a mat"}),
        ({"reference": "it was a dark and stormy night"}, {"answer": "it was a dark and stormy night"}),
        ({"references": []}, {"answer": ""}),
    ]
    figures = metrics.bleu.corpus(pairs)
    assert 0.5 < figures["bleu"] < 1.0
    assert figures["bleu"] != pytest.approx(sum(metrics.bleu(*pair) for pair in pairs[:2]) / 2, abs=0.005)
    assert metrics.bleu.corpus([({"references": []}, {"answer": ""})]) == {}


def test_japanese_bleu_is_of_words_not_of_sentences() -> None:
    row, prediction = {"answer": "猫が畳の上で寝ている。"}, {"answer": "猫が畳の上で寝ていた。"}
    assert Bleu(language="ja")(row, prediction) > 0.6
    assert metrics.bleu(row, prediction) == 0.0


def test_japanese_bleu_is_sacrebleu_s_and_takes_texts_too_long_for_mecab() -> None:
    import sacrebleu

    texts = ["猫が畳の上で 寝ていた。", "AIは2024年に1,000円で販売された。"]
    golds = ["猫は畳の上で寝ている。", "AIは2024年に千円で売られた。"]
    own = sacrebleu.BLEU(tokenize="ja-mecab", effective_order=True)
    for text, gold in zip(texts, golds, strict=True):
        expected = own.sentence_score(text, [gold]).score / 100
        assert metrics.bleu_ja({"answer": gold}, {"answer": text}) == pytest.approx(expected)
    pairs = [({"answer": gold}, {"answer": text}) for text, gold in zip(texts, golds, strict=True)]
    expected = sacrebleu.BLEU(tokenize="ja-mecab").corpus_score(texts, [golds]).score / 100
    assert metrics.bleu_ja.corpus(pairs)["bleu"] == pytest.approx(expected)
    assert metrics.bleu_ja({"answer": "x"}, {"answer": "a" * 300_000}) == 0.0
    assert metrics.rouge_l_ja({"answer": "x"}, {"answer": "a" * 300_000}) == 0.0


def test_missing_extra_says_how_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "rouge_score", None)
    from promptopt.metrics import overlap

    overlap._rouge.cache_clear()
    with pytest.raises(MissingExtraError, match=r"promptopt\[metrics\]"):
        Rouge()({"answer": "x"}, {"answer": "x"})
    monkeypatch.setitem(__import__("sys").modules, "MeCab", None)
    tokens._mecab.cache_clear()
    with pytest.raises(MissingExtraError, match=r"promptopt\[metrics\]"):
        words("猫", "ja")
