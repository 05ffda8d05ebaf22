"""Pools of names and values for the corpus, split once and for all into a training part and a held-out part.

Made-up names come from syllables; whether a name is held out is decided by a checksum of the name itself,
so the two parts can never overlap whatever seed draws them.
"""

import random
import zlib
from collections.abc import Callable

import lexicon

_ONSETS = "b br c ch d dr f g gr h j k kr l m n p pr r s sh st t tr v w y z".split()
_VOWELS = "a e i o u ai ea ie oa".split()
_CODAS = "l n r s t m k x nd rn lt sk".split()
_PLACE_ENDS = "ville ton ford burg port field wick mouth ham dale stad haven".split()
_COMPANY_ENDS = "Works Labs Foods Motors Group Trading Press Systems Bank Studio".split()
_PRODUCT_ENDS = "Mini Pro Plus One Max Air Box Kit".split()
MONTHS = "January February March April May June July August September October November December".split()
COLOURS = "red blue green yellow white black orange purple brown grey pink silver golden".split()
ANIMALS = "dog cat horse bird wolf bear lion tiger rabbit fox sheep goat duck eagle owl whale snake frog spider".split()
JOBS = (
    "baker driver pilot nurse engineer lawyer painter singer writer editor manager chef guard clerk judge mayor "
    "farmer sailor doctor teacher professor captain soldier scientist actor dancer"
).split()
_DIGITS = "0123456789"

TRAIN, NAMES, TEMPLATES = 0, 1, 2
"""What is held out of a draw: nothing (training), names and values, or these with templates and relations too."""

HELD_OUT_SHARE = 8
"""One name in this many is held out."""


def is_held_out(name: str) -> bool:
    """Says whether a made-up or listed name belongs to the held-out part."""
    return zlib.crc32(name.encode("utf-8")) % HELD_OUT_SHARE == 0


def _split(rng: random.Random, held_out: int, draw: Callable[[random.Random], str]) -> str:
    """Draws until the name falls in the wanted part."""
    for _ in range(1000):
        name = draw(rng)
        if is_held_out(name) == bool(held_out):
            return name
    raise RuntimeError("no name of the wanted part in 1000 draws")


def _syllables(rng: random.Random, low: int, high: int) -> str:
    """Makes a lower-case pseudo-word of `low` to `high` syllables."""
    parts = [rng.choice(_ONSETS) + rng.choice(_VOWELS) for _ in range(rng.randint(low, high))]
    if rng.random() < 0.6:
        parts.append(rng.choice(_CODAS))
    return "".join(parts)


def pseudo(rng: random.Random, held_out: int) -> str:
    """A capitalised made-up name of one or two syllables."""
    return _split(rng, held_out, lambda r: _syllables(r, 1, 2).capitalize())


def person(rng: random.Random, held_out: int) -> str:
    """A person: a first name, a made-up surname, or both."""
    kind = rng.random()
    if kind < 0.4:
        return _split(rng, held_out, lambda r: r.choice(lexicon.FIRST_NAMES))
    if kind < 0.7:
        return _split(rng, held_out, lambda r: f"{r.choice(lexicon.FIRST_NAMES)} {_syllables(r, 1, 2).capitalize()}")
    return pseudo(rng, held_out)


def place(rng: random.Random, held_out: int) -> str:
    """A made-up town."""
    return _split(rng, held_out, lambda r: _syllables(r, 1, 1).capitalize() + r.choice(_PLACE_ENDS))


def company(rng: random.Random, held_out: int) -> str:
    """A made-up company."""
    return _split(rng, held_out, lambda r: f"{_syllables(r, 1, 2).capitalize()} {r.choice(_COMPANY_ENDS)}")


def product(rng: random.Random, held_out: int) -> str:
    """A made-up product."""
    return _split(rng, held_out, lambda r: f"{_syllables(r, 1, 2).capitalize()} {r.choice(_PRODUCT_ENDS)}")


def thing(rng: random.Random, held_out: int) -> str:
    """A common thing with an adjective ("the green bridge" without the article)."""
    return _split(rng, held_out, lambda r: f"{r.choice(lexicon.ADJECTIVES)} {r.choice(lexicon.NOUNS)}")


def noun(rng: random.Random, held_out: int) -> str:
    """A common noun; the same list on both sides of the split."""
    return rng.choice(lexicon.NOUNS)


def colour(rng: random.Random, held_out: int) -> str:
    """A colour; the same list on both sides of the split."""
    return rng.choice(COLOURS)


def animal(rng: random.Random, held_out: int) -> str:
    """An animal; the same list on both sides of the split."""
    return rng.choice(ANIMALS)


def job(rng: random.Random, held_out: int) -> str:
    """A job; the same list on both sides of the split."""
    return rng.choice(JOBS)


def year(rng: random.Random, held_out: int) -> str:
    """A year between 1500 and 2029."""
    return _split(rng, held_out, lambda r: str(r.randint(1500, 2029)))


def date(rng: random.Random, held_out: int) -> str:
    """A day and a month, at times with a year."""
    day = f"{rng.randint(1, 28)} {rng.choice(MONTHS)}"
    return f"{day} {year(rng, held_out)}" if rng.random() < 0.3 else day


def number(rng: random.Random, held_out: int) -> str:
    """A whole number below ten thousand."""
    return _split(rng, held_out, lambda r: str(r.randint(2, 10 ** r.randint(1, 4))))


def price(rng: random.Random, held_out: int) -> str:
    """A price in one of three currencies."""
    amount = rng.randint(2, 900)
    return rng.choice((f"${amount}", f"{amount} euros", f"{amount} dollars"))


def code(rng: random.Random, held_out: int) -> str:
    """A short code of letters and digits."""
    letters = "".join(rng.choice("ABCDEFGHJKLMNPQRSTUVWXYZ") for _ in range(2))
    return letters + "".join(rng.choice(_DIGITS) for _ in range(rng.randint(1, 3)))


def phrase(rng: random.Random, held_out: int) -> str:
    """A phrase of one to three common words or names: the answer that must be copied, not known."""
    count = rng.choice((1, 1, 2, 2, 3))
    draws: tuple[Callable[[random.Random, int], str], ...] = (noun, colour, pseudo, thing, number)
    return " ".join(rng.choice(draws)(rng, held_out) for _ in range(count))


KINDS: dict[str, Callable[[random.Random, int], str]] = {
    "person": person,
    "place": place,
    "company": company,
    "product": product,
    "thing": thing,
    "noun": noun,
    "colour": colour,
    "animal": animal,
    "job": job,
    "year": year,
    "date": date,
    "number": number,
    "price": price,
    "code": code,
    "phrase": phrase,
    "pseudo": pseudo,
}


def draw(kind: str, rng: random.Random, held_out: int) -> str:
    """Draws one name or value of a kind from the training or the held-out part."""
    return KINDS[kind](rng, held_out)
