"""Near-duplicates: shingles per script, what is found and what is overlooked."""

import random

import numpy as np
import pytest

from promptopt.data.near_duplicates import NearDuplicates, shingles, similarity

WORDS = [f"word{number}" for number in range(400)]
KANJI = [chr(code) for code in range(0x4E00, 0x4E00 + 800)]


def changed(tokens: list[str], count: int, chance: random.Random) -> list[str]:
    copy = list(tokens)
    for place in chance.sample(range(len(copy)), count):
        copy[place] = f"other{place}"
    return copy


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("What is the capital of Japan?", "  what is THE capital of japan"),
        ("日本の首都は、どこですか？", "日本の首都はどこですか"),
        ("ＡＢＣ株式会社とは何ですか。", "ABC株式会社とは何ですか"),
        ("Cafe\u0301 au lait", "café au lait!"),
    ],
)
def test_case_width_punctuation_and_spaces_make_no_difference(first: str, second: str) -> None:
    assert np.array_equal(shingles(first), shingles(second))


def test_shingles_are_words_or_characters_by_script() -> None:
    assert len(shingles("one two three four five")) == 3  # three words each
    assert len(shingles("日本国憲法第九条")) == 4  # five characters each
    assert len(shingles("one two")) == 1
    assert len(shingles("!?")) == 0
    assert len(shingles("")) == 0
    assert similarity(shingles("a b c d"), shingles("d c b a")) == 0.0  # order counts


def test_similarity_is_that_of_the_sets() -> None:
    first, second = shingles("a b c d e f"), shingles("a b c d e x")  # 4 shingles each, 3 of them common
    assert similarity(first, second) == 3 / 5


def test_hashes_never_change() -> None:
    """Which rows are dropped depends on them: a run that is under way must find the same ones."""
    assert shingles("the quick brown fox").tolist() == [12708853114708517160, 16978188064735981951]


def test_pairs_above_the_threshold_are_found_and_none_below() -> None:
    chance = random.Random(0)
    index = NearDuplicates(0.8)
    texts = [chance.choices(WORDS, k=120) for _ in range(60)]
    for number, tokens in enumerate(texts):
        index.add(str(number), " ".join(tokens))
    found = wanted = 0
    for number, tokens in enumerate(texts):
        for count in range(1, 8):
            copy = " ".join(changed(tokens, count, chance))
            alike = similarity(shingles(" ".join(tokens)), shingles(copy))
            match = index.find(copy)
            if alike < 0.8:
                assert match is None
                continue
            wanted += 1
            found += match == (str(number), alike)
    assert wanted > 120
    assert found >= 0.99 * wanted


def test_japanese_near_duplicates() -> None:
    chance = random.Random(1)
    index = NearDuplicates(0.7)
    text = "".join(chance.choices(KANJI, k=200))
    index.add("law", text)
    assert index.find(text[:100] + "の" + text[100:]) is not None
    assert index.find("".join(chance.choices(KANJI, k=200))) is None


def test_the_first_of_several_is_named_and_nothing_resembles_an_empty_text() -> None:
    index = NearDuplicates(0.5)
    for key in ("b", "a"):
        index.add(key, "the same words again and again")
    index.add("none", "...")
    assert index.find("the same words again and again") == ("b", 1.0)
    assert index.find("...") is None


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.95, 1.0])
def test_every_threshold_works(threshold: float) -> None:
    index = NearDuplicates(threshold)
    index.add("a", " ".join(WORDS))
    assert index.find(" ".join(WORDS)) == ("a", 1.0)
    assert index.find(" ".join(reversed(WORDS))) is None


def test_a_book_is_no_burden() -> None:
    index = NearDuplicates(0.8)
    book = " ".join(f"w{number}" for number in range(60_000))
    index.add("book", book)
    assert index.find(book + " the end") is not None
