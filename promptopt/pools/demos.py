"""The demo pool: labelled demo sets drawn from train.

Labelled demos are the examples' own answers (DSPy's LabeledFewShot). Only a predictor that stands alone in its program
has them: the inner fields of a chain are not in the data.
"""

import random
from collections.abc import Sequence

from pydantic import JsonValue

from promptopt.pools.pool import Demo
from promptopt.records import DataRow


def labelled_demo_sets(
    rows: Sequence[DataRow], fields: Sequence[str], n_sets: int, largest: int, seed: int
) -> tuple[tuple[Demo, ...], ...]:
    """Return up to `n_sets` different demo sets, of sizes 1, 2, … `largest`, 1, 2, … in turn.

    A demo is paid for in every prompt, so the longest quarter of the rows is never drawn.

    Args:
        rows: training rows; those lacking one of `fields` are passed over.
        fields: the signature's fields, inputs and outputs.
    """
    usable = [row for row in rows if all(row.fields.get(name) not in (None, "") for name in fields)]
    usable.sort(key=lambda row: (sum(len(str(row.fields[name])) for name in fields), row.id))
    short = usable[: max(largest, (3 * len(usable) + 3) // 4)]
    draw = random.Random(seed)
    sets: list[tuple[Demo, ...]] = []
    for number in range(n_sets):
        size = min(1 + number % largest, len(short))
        demos = tuple(_demo(row.fields, fields) for row in draw.sample(short, size))
        if demos and demos not in sets:
            sets.append(demos)
    return tuple(sets)


def _demo(values: dict[str, JsonValue], fields: Sequence[str]) -> Demo:
    return {name: values[name] for name in fields}
