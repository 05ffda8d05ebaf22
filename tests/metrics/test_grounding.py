"""Groundedness: what is found in an answer, and what counts as standing in the inputs."""

import time

import pytest

from promptopt import metrics
from promptopt.errors import DataError
from promptopt.metrics.amounts import amounts_in
from promptopt.metrics.answers import Language
from promptopt.metrics.claims import claims_in
from promptopt.metrics.dates import PartialDate, dates_in
from promptopt.metrics.grounding import Groundedness, abstains

CONTEXT = (
    "Ada Lovelace, born on 10 December 1815 in London, wrote twenty-four pages of notes for Charles Babbage's engine. "
    'He called her the "Enchantress of Number". See https://www.example.org/ada/ for 1,234 letters, 3.5 % of them lost.'
)
CONTEXT_JA = (
    "東京都は令和3年5月10日、十二人の委員を任命した。株式会社アルファの「未来計画」によれば、費用は1万6500円。"
    "詳細は https://example.go.jp/plan を参照。第五条に基づく。"
)


@pytest.mark.parametrize(
    ("answer", "wrong"),
    [
        ("Lovelace was born in London.", []),
        ("She was born on December 10, 1815.", []),
        ("She was born in 1815.", []),
        ("She was born in December 1815.", []),
        ("She was born on 11 December 1815.", ["date '11 December 1815'"]),
        ("She was born on 1815-12-10 or 10/12/1815.", []),
        ("She wrote 24 pages.", []),
        ("She wrote 25 pages.", ["number '25'"]),
        ("There are 1234 letters; 3.5% are lost.", []),
        ("There are 1,235 letters.", ["number '1,235'"]),
        ("See example.org or www.example.org/ada.", []),
        ("See https://example.com/ada.", ["url 'https://example.com/ada'"]),
        ("Babbage said “enchantress of  number”.", []),
        ('Babbage said "queen of numbers".', ["quote 'queen of numbers'"]),
        ("Her husband was William King.", ["name 'William King'"]),
        ("Because NASA says so.", ["name 'NASA'"]),
        ("The Engine was Babbage's.", []),
        ("In December, Mr Babbage wrote it.", []),
        ("I believe it was her.", []),
    ],
)
def test_english(answer: str, wrong: list[str]) -> None:
    score = metrics.groundedness.score({"context": CONTEXT, "question": "Who?"}, {"answer": answer})
    said = score.feedback.removeprefix("not in the inputs: ")
    assert said == (", ".join(wrong) or "all of it stands in the inputs")
    assert score.details["hallucinated"] == float(bool(wrong))
    assert (score.value == 1.0) == (not wrong)


@pytest.mark.parametrize(
    ("answer", "wrong"),
    [
        ("2021年5月に12人を任命した。", []),
        ("２０２１年５月１０日です。", []),
        ("令和3年です。", []),
        ("令和4年です。", ["date '令和4年'"]),
        ("5月11日です。", ["date '5月11日'"]),
        ("費用は16,500円です。", []),
        ("費用は一万六千五百円です。", []),
        ("費用は1万7000円です。", ["number '1万7000'"]),
        ("第5条です。", []),
        ("第六条です。", ["number '六'"]),
        ("一般に、一部の人です。", []),
        ("「未来計画」によります。", []),
        ("「過去計画」によります。", ["quote '過去計画'"]),
        ("アルファの計画です。", []),
        ("ベータ社の計画です。", ["name 'ベータ'"]),
        ("東京都と大阪市です。", ["name '大阪市'"]),
        ("https://example.go.jp/plan を参照。", []),
        ("example@example.go.jp に送る。", ["url 'example@example.go.jp'"]),
    ],
)
def test_japanese(answer: str, wrong: list[str]) -> None:
    score = metrics.groundedness_ja.score({"context": CONTEXT_JA}, {"answer": answer})
    said = score.feedback.removeprefix("not in the inputs: ")
    assert said == (", ".join(wrong) or "all of it stands in the inputs")


def test_value_is_the_share_and_details_are_by_kind() -> None:
    answer = "Lovelace wrote 25 pages in 1815 and 3 letters to Paris; see https://example.com."
    score = metrics.groundedness.score({"context": CONTEXT}, {"answer": answer})
    assert score.value == pytest.approx(1 / 5)  # one URL, three numbers, one name: 1815 alone stands there
    assert score.details == {
        "urls": 0.0,
        "numbers": pytest.approx(1 / 3),
        "names": 0.0,
        "hallucinated": 1.0,
        "overlap": pytest.approx(10 / 15),
    }


def test_unanswerable_questions() -> None:
    row = {"context": CONTEXT, "question": "What did she eat?", "answers": []}
    score = metrics.groundedness.score(row, {"answer": "Lovelace ate in London."})
    assert (score.value, score.details["answered_unanswerable"], score.details["hallucinated"]) == (0.0, 1.0, 1.0)
    for declined in ("", "The context does not say.", "I don't know.", "No answer", "Unanswerable."):
        score = metrics.groundedness.score(row, {"answer": declined})
        assert (score.value, score.details["answered_unanswerable"], score.details["hallucinated"]) == (1.0, 0.0, 0.0)
    answered = metrics.groundedness.score({**row, "answers": ["bread"]}, {"answer": "bread"})
    assert "answered_unanswerable" not in answered.details


@pytest.mark.parametrize(
    ("text", "declines"),
    [
        ("  ", True),
        ("不明です。", True),
        ("文書には記載されていません。", True),
        ("It is not mentioned in the document.", True),
        ("It cannot be determined.", True),
        ("The answer is 5.", False),
        ("東京です。", False),
    ],
)
def test_abstains(text: str, declines: bool) -> None:
    assert abstains(text) is declines


def test_inputs_are_configurable_and_lists_are_read() -> None:
    metric = Groundedness(input_fields=("pages",), prediction_field="reply", overlap=False)
    assert metric.requires() == ("pages",)
    assert metric.score({"pages": ["one 7", "two 8"]}, {"reply": "8"}).details == {"numbers": 1.0, "hallucinated": 0.0}
    with pytest.raises(DataError, match="pages"):
        metric({"context": "8"}, {"reply": "8"})


def test_claims_are_counted_once() -> None:
    claims = list(claims_in('On 3 May 2021, "The 5 Rules" at http://a.org/2020 gave 7 and 7.', "en"))
    assert claims == [
        ("quotes", "The 5 Rules"),
        ("urls", "http://a.org/2020"),
        ("dates", "3 May 2021"),
        ("numbers", "7"),
    ]


@pytest.mark.parametrize(
    ("text", "language", "values"),
    [
        ("two hundred and fifty thousand", "en", [250_000]),
        ("1.5 million", "en", [1_500_000]),
        ("-3 and 1,000.25", "en", [-3, 1000.25]),
        ("forty-two", "en", [42]),
        ("二千二十四", "ja", [2024]),
        ("二〇二四", "ja", [2024]),
        ("三億五千万", "ja", [350_000_000]),
        ("1万6500", "ja", [16500]),
        ("2.5万", "ja", [25000]),
        ("万", "ja", []),
    ],
)
def test_amounts(text: str, language: Language, values: list[float]) -> None:
    found = {amount.value for amount in amounts_in(text, language)}
    assert set(values) <= found
    assert bool(found) == bool(values)


def test_dates() -> None:
    assert list(dates_in("Sept. 5th, 2020")) == [PartialDate(2020, 9, 5)]
    assert list(dates_in("the 1st of March")) == [PartialDate(None, 3, 1)]
    assert list(dates_in("平成元年")) == [PartialDate(1989)]
    assert list(dates_in("it may be 2020")) == []
    assert PartialDate(2020, 9).within(PartialDate(2020, 9, 5))
    assert not PartialDate(2020, 9, 5).within(PartialDate(2020, 9))


@pytest.mark.parametrize("unit", ["a", "A ", "one ", "一", "「", "1,", "http://", "A-", '"', "ア・", "( ", "x@"])
def test_long_answers_take_linear_time(unit: str) -> None:
    began = time.process_time()
    for metric in (metrics.groundedness, metrics.groundedness_ja, metrics.choice_letter):
        metric({"context": "x", "answer": "a"}, {"answer": unit * 10_000})
    assert time.process_time() - began < 3.0
