"""Numbers as GBNF: any number, and whole or decimal numbers between two bounds, as JSON (and Python) write them.

What lives here: digit arithmetic. Digits are bounded, because a model that has lost its way repeats the last digit for
ever. It does not know schemas. Between bounds a number is written without an exponent.
"""

from collections.abc import Iterable
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

from promptopt.errors import ConfigError

MAX_DIGITS = 32
ANY_INTEGER = f'"0" | "-"? [1-9] [0-9]{{0,{MAX_DIGITS - 1}}}'
_FRACTION = f'( "." [0-9]{{1,{MAX_DIGITS}}} )?'
# Exponents that leave the number finite: what comes back as infinity is no number to JSON, nor to a Decimal.
ANY_NUMBER = (
    f'"-"? ( ( "0" | [1-9] [0-9]{{0,{MAX_DIGITS - 1}}} ) {_FRACTION} ( [eE] ( "-" [0-9]{{1,3}} | "+"? [0-9]{{1,2}} ) )?'
    f' | [1-9] {_FRACTION} [eE] "+"? ( [12] [0-9]{{2}} | "30" [0-7] ) )'
)

_Digits = tuple[tuple[int, int], ...]
"""One (lowest, highest) digit per place."""


def integer(low: int | None, high: int | None) -> str:
    """Return an expression for the whole numbers from `low` to `high`; None is no bound.

    Raises:
        ConfigError: there is none.
    """
    if low is None and high is None:
        return ANY_INTEGER
    options = []
    if high is None or high >= 0:
        options += _naturals(max(low or 0, 0), high, 0)
    if low is None or low < 0:
        least = 1 if high is None or high >= 0 else -high
        options += [f'"-" {one}' for one in _naturals(least, None if low is None else -low, 0)]
    return _some(options, low, high)


def number(low: Decimal | None, high: Decimal | None, *, above: bool = False, below: bool = False) -> str:
    """Return an expression for the decimal numbers from `low` to `high`.

    Args:
        low: None is no bound.
        high: None is no bound.
        above: `low` itself is not allowed.
        below: `high` itself is not allowed.

    Raises:
        ConfigError: there is none.
    """
    if low is None and high is None:
        return ANY_NUMBER
    zero = Decimal(0)
    options = []
    if high is None or high > 0 or (high == 0 and not below):
        options += _magnitudes(*((low, above) if low is not None and low >= 0 else (zero, False)), high, below)
    if low is None or low < 0:
        least = (-high, below) if high is not None and high <= 0 else (zero, False)
        options += [f'"-" {one}' for one in _magnitudes(*least, None if low is None else -low, above)]
    return _some(options, low, high)


def _some(options: list[str], low: object, high: object) -> str:
    if not options:
        raise ConfigError(f"No number lies between minimum {low} and maximum {high}. Correct the bounds of the schema.")
    return " | ".join(options)


def _magnitudes(low: Decimal, above: bool, high: Decimal | None, below: bool) -> list[str]:
    """Return alternatives for numbers without sign: those with few decimals, then those with more than the bounds."""
    if high is not None and (high < low or (high == low and (above or below))):
        return []
    places = max(_decimals(low), 0 if high is None else _decimals(high))
    options = []
    for count in range(places):
        first = int((low.scaleb(count)).to_integral_value(ROUND_CEILING))
        first += above and Decimal(first) == low.scaleb(count)
        last = None if high is None else int(high.scaleb(count).to_integral_value(ROUND_FLOOR))
        if last is not None and high is not None and below and Decimal(last) == high.scaleb(count):
            last -= 1
        options += _naturals(first, last, count)
    least, most = int(low.scaleb(places)), None if high is None else int(high.scaleb(places))
    point = '"." ' if places == 0 else ""
    inner = least + above
    if most is None or inner <= most - 1:
        tail = _FRACTION if places == 0 else f"[0-9]{{0,{MAX_DIGITS}}}"
        options += [f"{one} {tail}" for one in _naturals(inner, None if most is None else most - 1, places)]
    if above and (most is None or least < most):
        more = f'{point}"0"{{0,{MAX_DIGITS}}} [1-9] [0-9]{{0,{MAX_DIGITS}}}'
        options += [f"{one} {more}" for one in _naturals(least, least, places)]
    if most is not None and not below:
        zeros = f'( {point}"0"{{1,{MAX_DIGITS}}} )?'
        options += [f"{one} {zeros}" for one in _naturals(most, most, places)]
    return options


def _decimals(value: Decimal) -> int:
    exponent = value.normalize().as_tuple().exponent
    return max(0, -int(exponent))


def _naturals(low: int, high: int | None, decimals: int) -> list[str]:
    """Return alternatives for `low` to `high`, the last `decimals` digits behind a point, no needless zero in front."""
    options = []
    shortest = decimals + 1
    longest = max(len(str(low)) if high is None else len(str(high)), shortest)
    for width in range(max(len(str(low)), shortest), longest + 1):
        first = max(low, 0 if width == shortest else 10 ** (width - 1))
        last = 10**width - 1 if high is None else min(high, 10**width - 1)
        if first <= last:
            options += [_shown(one, decimals) for one in _between(str(first).zfill(width), str(last).zfill(width))]
    if high is None:
        more = f"[1-9] [0-9]{{{longest - decimals},{max(MAX_DIGITS, longest)}}}"
        options.append(more + (f' "." [0-9]{{{decimals}}}' if decimals else ""))
    return options


def _between(low: str, high: str) -> list[_Digits]:
    """Return digit patterns that together are the numbers from `low` to `high`, which have equally many digits."""
    if not low:
        return [()]
    if set(low) == {"0"} and set(high) == {"9"}:
        return [((0, 9),) * len(low)]
    first, last, rest = int(low[0]), int(high[0]), len(low) - 1
    if first == last:
        return [((first, first), *more) for more in _between(low[1:], high[1:])]
    found: list[_Digits] = []
    start, stop = first, last
    if low[1:] != "0" * rest:
        found += [((first, first), *more) for more in _between(low[1:], "9" * rest)]
        start += 1
    ending: list[_Digits] = []
    if high[1:] != "9" * rest:
        ending = [((last, last), *more) for more in _between("0" * rest, high[1:])]
        stop -= 1
    if start <= stop:
        found.append(((start, stop), *((0, 9),) * rest))
    return found + ending


def _shown(digits: _Digits, decimals: int) -> str:
    whole = len(digits) - decimals
    return " ".join([*_places(digits[:whole]), *(['"."', *_places(digits[whole:])] if decimals else [])])


def _places(digits: Iterable[tuple[int, int]]) -> list[str]:
    shown: list[str] = []
    for low, high in digits:
        if low != high:
            shown.append(f"[{low}-{high}]")
        elif shown and shown[-1].startswith('"'):
            shown[-1] = f'{shown[-1][:-1]}{low}"'
        else:
            shown.append(f'"{low}"')
    return shown
