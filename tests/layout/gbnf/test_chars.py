"""Sets of characters."""

import re
import sys

from hypothesis import given
from hypothesis import strategies as st

from promptopt.layout.gbnf import chars
from tests.layout.gbnf_sampler import Gbnf

sets = st.text(max_size=8).map(chars.of)


def test_white_is_what_python_strips() -> None:
    assert [code for code in range(sys.maxunicode + 1) if chr(code).isspace()] == [
        code for first, last in chars.WHITE for code in range(first, last + 1)
    ]
    everything = "".join(map(chr, range(0xD800)))
    assert re.findall(r"\s", everything) == [char for char in everything if char.isspace()]


@given(sets, sets, st.characters())
def test_sets(one: chars.Ranges, other: chars.Ranges, char: str) -> None:
    code = ord(char)
    inside, beside = chars.contains(one, code), chars.contains(other, code)
    assert chars.contains(chars.union(one, other), code) == (inside or beside)
    assert chars.contains(chars.minus(one, other), code) == (inside and not beside)
    assert chars.contains(chars.complement(one), code) == (not inside)
    assert chars.complement(chars.complement(one)) == one


@given(st.lists(sets, max_size=4))
def test_atoms_are_told_apart_by_no_set(several: list[chars.Ranges]) -> None:
    found = chars.atoms(several)
    assert chars.union(*found) == ((0, chars.TOP),)
    assert sum(last - first + 1 for atom in found for first, last in atom) == chars.TOP + 1
    for atom in found:
        for one in several:
            assert chars.minus(atom, one) in (atom, ())


@given(st.text(min_size=1, max_size=8).map(chars.of), st.characters(exclude_categories=("Cs",)))
def test_classes_and_literals_are_read_back(one: chars.Ranges, char: str) -> None:
    assert Gbnf(f"root ::= {chars.class_text(one)}\n").accepts(char) == chars.contains(one, ord(char))
    outside = chars.complement(one)
    assert Gbnf(f"root ::= {chars.class_text(outside)}\n").accepts(char) == chars.contains(outside, ord(char))
    assert Gbnf(f"root ::= {chars.literal(char)}\n").accepts(char)


def test_letters_that_a_caseless_pattern_takes_for_one_another() -> None:
    assert chars.alike("s") == chars.of("sS\u017f")
    assert chars.alike("日") == chars.of("日")
