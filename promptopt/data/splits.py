"""train / val / test by content hash, the leak check, and the fingerprint of a set of rows. Reads no file."""

import hashlib
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from promptopt.config.data import DataConfig, SplitSizes
from promptopt.data.loaders import LoadedData, canonical_json
from promptopt.errors import DataError
from promptopt.records import DataRow

_SEEDS_TRIED = 100


@dataclass(frozen=True)
class Splits:
    """The three splits, each in hash order: any prefix of a split is a random sample of it.

    Attributes:
        overlapping: rows of the main source left out because `test_source` has the same row or group.
        left_over: rows beyond the sizes that were asked for.
    """

    train: tuple[DataRow, ...]
    val: tuple[DataRow, ...]
    test: tuple[DataRow, ...]
    overlapping: int = 0
    left_over: int = 0


def split_rows(loaded: LoadedData, config: DataConfig) -> Splits:
    """Return the splits of `loaded`; sizes are maxima.

    Every group (every row, where there are no groups) has a position in [0, 1): the hash of the seed and its name. The
    line is cut in proportion to the sizes asked for; what lies left of the first cut is train, then val, then test. A
    row's place thus depends on itself, the seed and the sizes, never on other rows: a row that is added to the file may
    push another one out of a split that is full, but moves none from train to test. The price: splits hold the shares
    asked for only on average. With a `test_source`, its rows alone are the test split; only train and val are cut.

    Raises:
        DataError: a split would be empty, or two splits share a row or a group.
    """
    pools, overlapping = _assign(loaded, config.split, config.seed)
    if not all(pools):
        raise DataError(_describe_empty(loaded, config, pools, overlapping))
    sizes = (config.split.train, config.split.val, config.split.test)
    train, val, test = (_in_hash_order(pool, config.seed)[:size] for pool, size in zip(pools, sizes, strict=True))
    left_over = sum(len(pool) for pool in pools) - len(train) - len(val) - len(test)
    splits = Splits(train, val, test, overlapping, left_over)
    check_leaks(splits)
    return splits


def check_leaks(splits: Splits) -> None:
    """Pass if no two splits share an input or a group.

    Raises:
        DataError: two do; the message names them and one example.
    """
    named = {"train": splits.train, "val": splits.val, "test": splits.test}
    for (first, rows), (second, others) in itertools.combinations(named.items(), 2):
        shared = {row.id for row in rows} & {row.id for row in others}
        if shared:
            raise DataError(f"{len(shared)} row(s) stand in both {first} and {second}, e.g. id {min(shared)}.")
        groups = ({row.group for row in rows} & {row.group for row in others}) - {""}
        if groups:
            raise DataError(f"{len(groups)} group(s) stand in both {first} and {second}, e.g. {min(groups)!r}.")


def fingerprint(rows: Iterable[DataRow]) -> str:
    """Return the sha256 hex digest of ids, fields and groups: equal for equal rows, whatever their order."""
    lines = sorted(canonical_json([row.id, row.fields, row.group]) for row in rows)
    return hashlib.sha256("\n".join(lines).encode("utf-8")).hexdigest()


def position(name: str, seed: int) -> float:
    """Return the place of `name` in [0, 1): uniform over names, the same on every machine."""
    return (_digest(name, seed) >> 11) / 2**53  # 53 bits: more would round up to 1.0


def _digest(name: str, seed: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:8], "big")


def _assign(loaded: LoadedData, sizes: SplitSizes, seed: int) -> tuple[tuple[list[DataRow], ...], int]:
    """Return the unbounded train, val and test pools, and how many rows overlap with the test source."""
    shares = [sizes.train, sizes.val] + ([sizes.test] if loaded.test_rows is None else [])
    cuts = [cut / sum(shares) for cut in itertools.accumulate(shares)][:-1]
    pools: tuple[list[DataRow], ...] = ([], [], list(loaded.test_rows or ()))
    test_ids = {row.id for row in pools[2]}
    test_groups = {row.group for row in pools[2]} - {""}
    overlapping = 0
    for row in loaded.rows:
        if row.id in test_ids or row.group in test_groups:
            overlapping += 1
        else:
            place = position(_unit(row), seed)
            pools[sum(place >= cut for cut in cuts)].append(row)
    return pools, overlapping


def _unit(row: DataRow) -> str:
    return f"group:{row.group}" if row.group else f"row:{row.id}"


def _in_hash_order(rows: Sequence[DataRow], seed: int) -> tuple[DataRow, ...]:
    # Another salt than `_unit`'s, so that groups are mixed, not lined up one after the other.
    return tuple(sorted(rows, key=lambda row: (_digest(f"order:{row.id}", seed), row.id)))


def _describe_empty(loaded: LoadedData, config: DataConfig, pools: tuple[list[DataRow], ...], overlapping: int) -> str:
    counts = ", ".join(f"{name} {len(pool)}" for name, pool in zip(("train", "val", "test"), pools, strict=True))
    units = len({_unit(row) for row in loaded.rows})
    what = "groups" if config.group else "different rows"
    seeds = (seed for seed in range(_SEEDS_TRIED) if all(_assign(loaded, config.split, seed)[0]))
    seed = next(seeds, None)
    advice = f"`data.seed: {seed}` fills every split" if seed is not None else "no seed up to 100 fills every split"
    overlap = f" ({overlapping} left out, being in the test source too)" if overlapping else ""
    return (
        f"A split would be empty: {counts}, out of {len(loaded.rows)} rows in {units} {what} with seed "
        f"{config.seed}{overlap}. Add rows, even out `data.split`, or choose another seed ({advice})."
    )
