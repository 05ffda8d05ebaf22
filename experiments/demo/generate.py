"""Generates the demo's data: short records of ships, museum pieces and weather stations, each with one question.

Every record is about two subjects that share an attribute, so that answer cannot be found without reading which
one is asked about. Dates are written in several ways in the records; the answer always reads "12 March 1931".
Names, templates and domain are others than those of the starter model's training corpus.

Run: ``python generate.py --n 400 --seed 1 --out rows.jsonl``.
"""

import argparse
import json
import pathlib
import random
from dataclasses import dataclass

MONTHS = "January February March April May June July August September October November December".split()
GIVEN = "Agatha Barnaby Cordelia Desmond Eudora Fergus Gwendolen Horatio Imogen Jasper Leopold Millicent Nathaniel Ottilie".split()
FAMILY = "Ashdown Brackwell Carrowby Dunmore Ellingham Farthing Gillespie Hathersage Inchbald Kettering Lockhart Mossgrove".split()
HARBOURS = (
    "Selwick Bay|Gull Haven|Cape Orrin|Whitsand|Marrow Quay|Tarn Sound|Old Fenwick|Kelp Point|Saint Brannoc|Iron Strand"
)
SHIPS = (
    "Amber Tern|Northern Heron|Lady Marchbanks|Silent Drummer|Copper Gannet|Winter Lantern|Resolute Finch|Pale Mermaid"
)
PIECES = "tin lantern|ivory comb|walnut cradle|copper kettle|glass barometer|painted drum|bone whistle|brass sextant|wicker sledge"
STATIONS = "Hollow Ridge|Frostgate|Cairn Edge|Upper Langmere|Stormhead|Thistle Fell|Greywater|Lantern Rock|Bleak Tor"
CARGO = "dried figs|barrel staves|raw wool|roof slates|linseed oil|salt herring|grand pianos|printed cotton|pine resin|tea chests"
YARDS = "Hobb and Daughters|Tolliver Yard|the Pryce brothers|Easterly Dock|Quill and Marsh|the Vane company"
MATERIALS = "cherry wood|pewter|horn|oak and leather|red clay|silver wire|whalebone|enamel"
ROOMS = "the Long Gallery|the Map Room|the north cellar|the Clock Hall|the upper landing|the Blue Cabinet"
INSTRUMENTS = "a rain gauge|a wind vane|a snow stake|a sunshine recorder|a seismograph|a cloud mirror"
BEASTS = "a mule|two huskies|a tame raven|a grey goat|three hens|a ginger cat"
FILLERS = (
    "The entry was copied by hand in a later year.",
    "A note in the margin is no longer legible.",
    "Little else is written on the first page.",
    "The clerk added that the ink had run.",
    "Two pages are missing from this part of the register.",
    "Visitors may read the original on request.",
    "The remaining lines repeat what other books say.",
    "An earlier account differs in small points.",
)


@dataclass(frozen=True)
class Attribute:
    """One thing a record says: how it is stated of a subject `{s}`, how it is asked, and how its value is drawn."""

    statements: tuple[str, ...]
    questions: tuple[str, ...]
    values: str


@dataclass(frozen=True)
class Domain:
    """A kind of record: its subjects, the words that introduce the first and the second one, and its attributes."""

    subjects: str
    first: tuple[str, ...]
    second: tuple[str, ...]
    attributes: tuple[Attribute, ...]


def _attribute(values: str, statements: str, questions: str) -> Attribute:
    return Attribute(tuple(statements.split("|")), tuple(questions.split("|")), values)


DOMAINS = (
    Domain(
        SHIPS,
        ("This page of the shipping register concerns the {s}.", "The harbour book opens with the vessel {s}."),
        ("Moored beside her lay the {s}.", "The same page also mentions another vessel, the {s}."),
        (
            _attribute(
                "person",
                "Command of the {s} passed to {v}.|{v} stood at the helm of the {s}.|Her orders on the {s} came from {v}.",
                "Who commanded the {s}?|Whose orders did the crew of the {s} obey?|Name the skipper of the {s}.",
            ),
            _attribute(
                HARBOURS,
                "The {s} was registered at {v}.|Her papers give {v} as the home port of the {s}.|Between voyages the {s} lay at {v}.",
                "At which harbour was the {s} registered?|What was the home port of the {s}?|Where did the {s} lie between voyages?",
            ),
            _attribute(
                CARGO,
                "In her hold the {s} carried {v}.|A load of {v} filled the {s}.|The {s} was chartered to haul {v}.",
                "What cargo did the {s} carry?|With what was the {s} loaded?|What was the {s} chartered to haul?",
            ),
            _attribute(
                "date",
                "The {s} left the slipway on {v}.|She was christened as the {s} on {v}.|On {v} the {s} first touched water.",
                "On what date was the {s} launched?|When did the {s} first touch water?|What day was the {s} christened?",
            ),
            _attribute(
                YARDS,
                "The hull of the {s} was laid down by {v}.|Her builders, {v}, were proud of the {s}.|A plate on the {s} names {v}.",
                "Which yard built the {s}?|Who laid down the hull of the {s}?|Whose plate is fixed on the {s}?",
            ),
        ),
    ),
    Domain(
        PIECES,
        ("Case nine of the museum holds the {s}.", "The curator's card describes the {s}."),
        ("On the same shelf rests the {s}.", "A second card is pinned below, for the {s}."),
        (
            _attribute(
                "person",
                "The {s} was a gift of {v}.|{v} bequeathed the {s} to the museum.|The family of {v} parted with the {s}.",
                "Who gave the {s} to the museum?|From whom did the museum get the {s}?|Name the donor of the {s}.",
            ),
            _attribute(
                MATERIALS,
                "The {s} is fashioned from {v}.|Its maker chose {v} for the {s}.|Under the varnish the {s} turns out to be {v}.",
                "Of what is the {s} made?|What did the maker choose for the {s}?|Which material lies under the varnish of the {s}?",
            ),
            _attribute(
                ROOMS,
                "In wintertime the {s} is kept in {v}.|The {s} hung for decades in {v}.|A guide will show the {s} in {v}.",
                "In which part of the museum is the {s} kept?|Where will a guide show the {s}?|Where did the {s} hang?",
            ),
            _attribute(
                "date",
                "The {s} entered the collection on {v}.|On {v} the {s} was unpacked and dusted.|The ledger shows the {s} under {v}.",
                "On what date did the {s} enter the collection?|When was the {s} unpacked?|Under which day does the ledger show the {s}?",
            ),
            _attribute(
                "mark",
                "The {s} bears the inventory mark {v}.|A paper tag on the {s} says {v}.|Scholars cite the {s} as {v}.",
                "What inventory mark does the {s} bear?|What does the tag on the {s} say?|How do scholars cite the {s}?",
            ),
        ),
    ),
    Domain(
        STATIONS,
        ("The observers' diary begins with the hut at {s}.", "This report covers the weather post at {s}."),
        ("Another post stood across the glacier, at {s}.", "The relief party then climbed on to {s}."),
        (
            _attribute(
                "person",
                "At {s} the watch was kept by {v}.|{v} wintered alone at {s}.|Readings from {s} are signed {v}.",
                "Who kept the watch at {s}?|Which observer wintered at {s}?|Who signed the readings from {s}?",
            ),
            _attribute(
                INSTRUMENTS,
                "The pride of the post at {s} was {v}.|Lightning struck {v} at {s}.|A sled brought {v} up to {s}.",
                "Which instrument stood at {s}?|What did a sled bring to {s}?|What was struck by lightning at {s}?",
            ),
            _attribute(
                "height",
                "The barometer puts {s} at {v}.|Surveyors give {s} a height of {v}.|The cairn by {s} is marked {v}.",
                "How high is {s}?|What height do surveyors give {s}?|At what altitude lies {s}?",
            ),
            _attribute(
                "date",
                "Snow closed the path to {s} on {v}.|On {v} the stove at {s} was lit for the first time.|The last reading at {s} is of {v}.",
                "On what date was the event noted at {s}?|What day does the diary give for {s}?|Which date belongs to {s}?",
            ),
            _attribute(
                BEASTS,
                "For company {s} had {v}.|The rations at {s} were shared with {v}.|Someone had taken {v} along to {s}.",
                "What animal lived at {s}?|With what were the rations at {s} shared?|What company did {s} have?",
            ),
        ),
    ),
)


def _date(rng: random.Random) -> tuple[str, str]:
    """A date as a record writes it, and as the answer is expected."""
    day, month, year = rng.randint(1, 28), rng.choice(MONTHS), rng.randint(1790, 1969)
    ending = "th" if day in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(day % 10, "th")
    written = rng.choice((f"{month} {day}, {year}", f"{day} {month} {year}", f"the {day}{ending} of {month} {year}"))
    return written, f"{day} {month} {year}"


def _value(rng: random.Random, kind: str) -> tuple[str, str]:
    """A value as written and as expected in the answer, which leaves out a leading article."""
    if kind == "date":
        return _date(rng)
    if kind == "person":
        name = f"{rng.choice(GIVEN)} {rng.choice(FAMILY)}"
        return name, name
    if kind == "mark":
        mark = f"{rng.choice('QWXZ')}-{rng.randint(100, 999)}"
        return mark, mark
    if kind == "height":
        height = f"{rng.randint(40, 320) * 10} feet"
        return height, height
    written = rng.choice(kind.split("|"))
    return written, written.removeprefix("the ").removeprefix("a ")


def _row(rng: random.Random) -> dict[str, str]:
    """One record with a question on one of its two subjects."""
    domain = rng.choice(DOMAINS)
    one, two = rng.sample(domain.subjects.split("|"), 2)
    shared = rng.sample(domain.attributes, 1)
    extra = rng.sample([a for a in domain.attributes if a not in shared], 2)
    sentences: list[str] = []
    asked: list[tuple[str, str]] = []
    taken: set[str] = set()
    for subject, opening, attributes in ((one, domain.first, [*shared, *extra]), (two, domain.second, shared)):
        part = []
        for attribute in rng.sample(attributes, len(attributes)):
            written, answer = _value(rng, attribute.values)
            while answer in taken:
                written, answer = _value(rng, attribute.values)
            taken.add(answer)
            stated = rng.choice(attribute.statements).format(s=subject, v=written)
            part.append(stated[0].upper() + stated[1:])
            asked.append((rng.choice(attribute.questions).format(s=subject), answer))
        sentences += [rng.choice(opening).format(s=subject), *part]
    sentences.insert(rng.randint(1, len(sentences)), rng.choice(FILLERS))
    question, answer = rng.choice(asked)
    return {"document": " ".join(sentences), "question": question, "answer": answer}


def generate(n: int, seed: int) -> list[dict[str, str]]:
    """Generates different records of 35 to 90 words in seven sentences.

    Both subjects share one attribute, whose questions can only be answered by reading which subject is asked about; the
    first subject has two more. A model this small is to stand neither at the floor nor at the ceiling.

    Args:
        n: How many rows.
        seed: Rows of one seed are always the same; other seeds give other rows.

    Returns:
        Rows with the keys `document`, `question` and `answer`.
    """
    rng = random.Random(f"promptopt-demo-{seed}")
    rows: dict[str, dict[str, str]] = {}
    while len(rows) < n:
        row = _row(rng)
        if 35 <= len(row["document"].split()) <= 90:
            rows.setdefault(row["document"], row)
    return list(rows.values())


def main() -> None:
    """Writes rows as JSON lines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=400)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    args = parser.parse_args()
    lines = [json.dumps(row, ensure_ascii=False) for row in generate(args.n, args.seed)]
    args.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
