"""Digit arithmetic, checked number by number."""

import json
import math
import random
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptopt.errors import ConfigError
from promptopt.layout.gbnf import numbers
from tests.layout.gbnf_sampler import Gbnf, samples

bounds = st.one_of(st.none(), st.integers(-1200, 1200))
decimals = st.one_of(st.none(), st.decimals(-150, 150, places=2), st.integers(-150, 150).map(Decimal))


def grammar(body: str) -> Gbnf:
    return Gbnf(f"root ::= {body}\n")


@settings(max_examples=60)
@given(bounds, bounds)
def test_whole_numbers(low: int | None, high: int | None) -> None:
    if low is not None and high is not None and low > high:
        with pytest.raises(ConfigError, match="No number lies between"):
            numbers.integer(low, high)
        return
    parsed = grammar(numbers.integer(low, high))
    rng = random.Random(0)
    near = [edge + step for edge in (low, high, 0) if edge is not None for step in (-1, 0, 1)]
    for value in [*near, *(rng.randint(-3000, 3000) for _ in range(40)), 10**20, -(10**20)]:
        fits = (low is None or low <= value) and (high is None or value <= high)
        assert parsed.accepts(str(value)) == fits, value
    for text in ("", "-", "-0", "00", "1.0", "1e1"):
        assert not parsed.accepts(text)


@settings(max_examples=80)
@given(decimals, decimals, st.booleans(), st.booleans())
def test_decimal_numbers(low: Decimal | None, high: Decimal | None, above: bool, below: bool) -> None:
    def fits(value: Decimal) -> bool:
        over = low is None or (low < value if above else low <= value)
        return over and (high is None or (value < high if below else value <= high))

    if low is not None and high is not None and (low > high or (low == high and (above or below))):
        with pytest.raises(ConfigError, match="No number lies between"):
            numbers.number(low, high, above=above, below=below)
        return
    body = numbers.number(low, high, above=above, below=below)
    for text in samples(f"root ::= {body}\n", 60):
        assert fits(Decimal(text)), text
        json.loads(text)
    parsed = grammar(body)
    rng = random.Random(0)
    tiny = Decimal("0.001")
    near = [edge + step for edge in (low, high, Decimal(0)) if edge is not None for step in (-1, -tiny, 0, tiny, 1)]
    drawn = [Decimal(rng.randint(-200_000, 200_000)).scaleb(-rng.randint(0, 3)) for _ in range(40)]
    for value in [*near, *drawn]:
        for text in {f"{value:f}", f"{value.normalize():f}"}:
            assert parsed.accepts(text) == (fits(value) and text != "-0"), text


def test_every_number_is_finite_and_python_writes_them_so() -> None:
    parsed = grammar(numbers.ANY_NUMBER)
    for text in samples(f"root ::= {numbers.ANY_NUMBER}\n", 300):
        assert math.isfinite(json.loads(text)), text
    rng = random.Random(0)
    for _ in range(300):
        value = rng.choice(
            (rng.uniform(-5, 5), rng.uniform(-1e20, 1e20), 10 ** rng.uniform(-300, 307.9), float(rng.randint(0, 9)))
        )
        assert parsed.accepts(repr(value)), value
    for text in ("", "1.", ".5", "01", "+1", "NaN", "Infinity", "1e"):
        assert not parsed.accepts(text)
