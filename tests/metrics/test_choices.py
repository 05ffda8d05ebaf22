"""Multiple choice: letters in answers, and agreement across orders of the options."""

import pytest

from promptopt import metrics
from promptopt.errors import DataError
from promptopt.metrics.choices import ChoiceLetter, chosen_letter, option_texts, order_agreement


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("c", "c"),
        (" C. ", "c"),
        ("「ｂ」", "b"),
        ("**d**", "d"),
        ("(a)", "a"),
        ("a", "a"),
        ("A", "a"),
        ("c 第5条第1項の届出書", "c"),
        ("b. Because d is wrong.", "b"),
        ("答えはcです。", "c"),
        ("回答：d", "d"),
        ("正解は「b」です。aは誤りです。", "b"),
        ("選択肢aは誤り。よって答え: c", "c"),
        ("The answer is (B).", "b"),
        ("The correct option is d because a and b are wrong", "d"),
        ("I think it is C.", "c"),
        ("a contract is void", None),
        ("A contract is void, so c.", "c"),
        ("a or b", None),
        ("aとcは正しい", None),
        ("e", None),
        ("abcd", None),
        ("", None),
        ("none", None),
    ],
)
def test_chosen_letter(text: str, letter: str | None) -> None:
    assert chosen_letter(text) == letter


def test_choice_letter() -> None:
    assert metrics.choice_letter({"answer": "C"}, {"answer": "c. 第5条"}) == 1.0
    score = metrics.choice_letter.score({"label": "c"}, {"answer": "分かりません"})
    assert (score.value, score.details) == (0.0, {"answered": 0.0})
    assert ChoiceLetter(letters="1234")({"label": 3}, {"answer": "答えは3番"}) == 1.0
    with pytest.raises(DataError, match="none of the letters"):
        metrics.choice_letter({"answer": "x"}, {"answer": "c"})


def test_option_texts() -> None:
    assert option_texts("a 一つ\n続き\nb) two\nＣ．三つ") == {"a": "一つ 続き", "b": "two", "c": "三つ"}
    assert option_texts("no options") == {}


def test_order_agreement_is_of_options_not_of_letters() -> None:
    one, other = "a red\nb blue", "a blue\nb red"
    always_a = [("q", one, "a"), ("q", other, "a")]
    always_red = [("p", one, "a"), ("p", other, "b"), ("p", one, "c?")]
    found = order_agreement([*always_a, *always_red, ("asked once", one, "a")])
    assert (found.questions, found.all_same, found.pairwise) == (2, 0.0, pytest.approx((0 + 1 / 3) / 2))
    assert order_agreement(always_red[:2]).all_same == 1.0
    assert order_agreement([("q", one, "?"), ("q", one, "?")]).pairwise == 0.0
    with pytest.raises(DataError, match="two orders"):
        order_agreement([("q", one, "a")])
