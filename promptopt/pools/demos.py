"""Demo sets of training rows with their own answers: random, diverse and typical ones.

Labelled demos are the examples' own answers (DSPy's LabeledFewShot). Only a predictor that stands alone in its program
has them: the inner fields of a chain are not in the data.

All sets are static: a set is the same for every input. Nothing here looks for demos that resemble the input at hand (as
DSPy's KNNFewShot does): the prompt's prefix would change with every input, and could not be shared or trained on.
"""

import random
from collections.abc import Sequence

from pydantic import JsonValue

from promptopt.pools.coverage import central_first, farthest_first, input_vectors, sampled
from promptopt.pools.pool import Demo, DemoSet
from promptopt.records import DataRow


def labelled_demo_sets(
    rows: Sequence[DataRow], fields: Sequence[str], n_sets: int, largest: int, seed: int
) -> tuple[DemoSet, ...]:
    """Return up to `n_sets` different random demo sets, of sizes 1, 2, … `largest`, 1, 2, … in turn.

    Args:
        rows: training rows; those lacking one of `fields` are passed over.
        fields: the signature's fields, inputs and outputs.
    """
    short = short_rows(rows, fields, largest)
    draw = random.Random(seed)
    sets: list[DemoSet] = []
    for number in range(n_sets):
        size = min(1 + number % largest, len(short))
        demos = tuple(_demo(row.fields, fields) for row in draw.sample(short, size))
        if demos and demos not in sets:
            sets.append(demos)
    return tuple(sets)


def diverse_demo_sets(
    rows: Sequence[DataRow], inputs: Sequence[str], outputs: Sequence[str], n_sets: int, largest: int, seed: int
) -> tuple[DemoSet, ...]:
    """Return up to `n_sets` different demo sets that cover the inputs of `rows`, of sizes `largest` … 2 in turn.

    The first set covers all rows; each later one a seeded half of them, for the farthest points of all rows are
    always the same few.
    """
    fields = [*inputs, *outputs]
    usable = sampled(short_rows(rows, fields, largest), seed)
    if not usable:
        return ()
    vectors = input_vectors(usable, inputs)
    draw = random.Random(f"{seed}:diverse")
    found: list[list[int]] = []
    # A small train has few different halves: give up after a while.
    for attempt in range(4 * n_sets):
        if len(found) == n_sets:
            break
        size = _diverse_size(len(found), largest)
        half = max(size, len(usable) // 2)
        part = list(range(len(usable)))
        if attempt and half < len(usable):
            part = sorted(draw.sample(part, half))
        chosen = [part[position] for position in farthest_first(vectors[part], size)]
        if set(chosen) not in [set(earlier) for earlier in found]:
            found.append(chosen)
    return tuple(tuple(_demo(usable[position].fields, fields) for position in chosen) for chosen in found)


def typical_demo_sets(
    rows: Sequence[DataRow], inputs: Sequence[str], outputs: Sequence[str], n_sets: int, largest: int, seed: int
) -> tuple[DemoSet, ...]:
    """Return up to `n_sets` different demo sets from the middle of the inputs, of sizes 1, 2, … `largest` in turn.

    A typical row is like most others: what it shows helps with many of them, and it is seldom a broken one. The sets
    with the medoid itself come first in each size; later ones are drawn from the most central quarter.
    """
    fields = [*inputs, *outputs]
    usable = sampled(short_rows(rows, fields, largest), seed)
    if not usable:
        return ()
    order = central_first(input_vectors(usable, inputs))
    middle = order[: max(2 * largest, len(order) // 4)]
    draw = random.Random(f"{seed}:typical")
    found: list[list[int]] = []
    for number in range(4 * n_sets):
        if len(found) == n_sets:
            break
        size = min(1 + len(found) % largest, len(middle))
        chosen = middle[:size] if number < largest else draw.sample(middle, size)
        if set(chosen) not in [set(earlier) for earlier in found]:
            found.append(chosen)
    return tuple(tuple(_demo(usable[position].fields, fields) for position in chosen) for chosen in found)


def short_rows(rows: Sequence[DataRow], fields: Sequence[str], least: int) -> list[DataRow]:
    """Return the rows that have all `fields`, shortest first, without the longest quarter (but at least `least`).

    A demo is paid for in every prompt, so long rows are never shown.
    """
    usable = [row for row in rows if all(row.fields.get(name) not in (None, "") for name in fields)]
    usable.sort(key=lambda row: (sum(len(str(row.fields[name])) for name in fields), row.id))
    return usable[: max(least, (3 * len(usable) + 3) // 4)]


def _diverse_size(number: int, largest: int) -> int:
    # One demo covers nothing.
    return largest - number % (largest - 1) if largest > 1 else 1


def _demo(values: dict[str, JsonValue], fields: Sequence[str]) -> Demo:
    return {name: values[name] for name in fields}
