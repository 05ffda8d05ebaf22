"""train / val / test by content hash, the leak checks, and the fingerprint of a set of rows. Reads no file."""

import hashlib
import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from promptopt.config.data import DataConfig, SplitSizes
from promptopt.data.loaders import LoadedData, canonical_json
from promptopt.data.split_leaks import LAST_FIRST, LeakFinder, SplitLeak, find_leaks
from promptopt.errors import DataError
from promptopt.records import DataRow, SplitName

_NAMES: tuple[SplitName, ...] = ("train", "val", "test")
_SEEDS_TRIED = 100


@dataclass(frozen=True)
class Splits:
    """The three splits, each in hash order: any prefix of a split is a random sample of it.

    Attributes:
        overlapping: rows of the main source left out because `test_source` has the same row or group.
        left_over: rows beyond the sizes that were asked for.
        near_duplicates: rows left out of train and val because they nearly equal a row of a later split.
    """

    train: tuple[DataRow, ...]
    val: tuple[DataRow, ...]
    test: tuple[DataRow, ...]
    overlapping: int = 0
    left_over: int = 0
    near_duplicates: int = 0


def split_rows(loaded: LoadedData, config: DataConfig) -> Splits:
    """Return the splits of `loaded`; sizes are maxima.

    Every group (every row, where there are no groups) has a position in [0, 1): the hash of the seed and its name. The
    line is cut in proportion to the sizes asked for; what lies left of the first cut is train, then val, then test. A
    row's place thus depends on itself, the seed and the sizes, never on other rows: a row that is added to the file may
    push another one out of a split that is full, but moves none from train to test. The price: splits hold the shares
    asked for only on average. With a `test_source`, its rows alone are the test split; only train and val are cut.

    With `near_duplicates: drop`, a row of train or val that nearly equals a row taken for a later split is passed over
    and the next one of its own pool taken; this alone lets one row decide about another.

    Raises:
        DataError: a split would be empty, or two splits share a row or a group.
    """
    pools, overlapping = _assign(loaded, config.split, config.seed)
    if not all(pools):
        raise DataError(_describe_empty(loaded, config, pools, overlapping))
    ordered = dict(zip(_NAMES, (_in_hash_order(pool, config.seed) for pool in pools), strict=True))
    taken, dropped = _take(ordered, config)
    left_over = sum(map(len, ordered.values())) - sum(map(len, taken.values())) - dropped
    splits = Splits(taken["train"], taken["val"], taken["test"], overlapping, left_over, dropped)
    check_leaks(splits)
    return splits


def check_leaks(splits: Splits) -> None:
    """Pass if no two splits share an input or a group.

    Raises:
        DataError: two do; the message names them and one example.
    """
    for (first, rows), (second, others) in itertools.combinations(named_splits(splits).items(), 2):
        shared = {row.id for row in rows} & {row.id for row in others}
        if shared:
            raise DataError(f"{len(shared)} row(s) stand in both {first} and {second}, e.g. id {min(shared)}.")
        groups = ({row.group for row in rows} & {row.group for row in others}) - {""}
        if groups:
            raise DataError(f"{len(groups)} group(s) stand in both {first} and {second}, e.g. {min(groups)!r}.")


def near_duplicates_across(splits: Splits, config: DataConfig) -> list[SplitLeak]:
    """Return the rows of train and val that nearly equal a row of a later split; none where they are not looked for.

    Raises:
        DataError: there are some, and `near_duplicates` is `error`.
    """
    if config.near_duplicates in ("off", "drop"):  # dropped ones are gone
        return []
    leaks = find_leaks(named_splits(splits), config.inputs, config.near_duplicate_threshold)
    if leaks and config.near_duplicates == "error":
        raise DataError(describe_leaks(leaks))
    return leaks


def describe_leaks(leaks: Sequence[SplitLeak]) -> str:
    """Return one line about near-duplicates across splits: how many, an example, and what can be done."""
    counts = Counter((leak.split, leak.other_split) for leak in leaks)
    said = ", ".join(f"{count} of {split} nearly equal one of {other}" for (split, other), count in counts.items())
    return (
        f"Near-duplicates across splits: {said} (e.g. ids {leaks[0].row_id} and {leaks[0].other_id}, similarity "
        f"{leaks[0].similarity:.2f}). Scores on {leaks[0].other_split} may be too good. Name a `data.group` that keeps "
        "them together, leave them out with `data.near_duplicates: drop`, or see them with `promptopt data inspect`."
    )


def named_splits(splits: Splits) -> dict[SplitName, tuple[DataRow, ...]]:
    """Return the splits by name."""
    return {"train": splits.train, "val": splits.val, "test": splits.test}


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


def _take(
    ordered: dict[SplitName, tuple[DataRow, ...]], config: DataConfig
) -> tuple[dict[SplitName, tuple[DataRow, ...]], int]:
    """Return as many rows of each pool as were asked for, and how many near-duplicates were passed over."""
    sizes: dict[str, int] = config.split.model_dump()
    if config.near_duplicates != "drop":
        return {name: rows[: sizes[name]] for name, rows in ordered.items()}, 0
    finder = LeakFinder(config.inputs, config.near_duplicate_threshold)
    taken: dict[SplitName, tuple[DataRow, ...]] = {}
    dropped = 0
    for name in LAST_FIRST:
        kept: list[DataRow] = []
        for row in ordered[name]:
            if len(kept) == sizes[name]:
                break
            if taken and finder.find(name, row):
                dropped += 1
            else:
                kept.append(row)
        if not kept:
            raise DataError(
                f"Every row of {name} nearly equals one of a later split, and `data.near_duplicates` is `drop`. "
                f"Raise `data.near_duplicate_threshold` ({config.near_duplicate_threshold:g}), or choose `warn`."
            )
        taken[name] = tuple(kept)
        finder.add(name, kept)
    return taken, dropped


def _unit(row: DataRow) -> str:
    return f"group:{row.group}" if row.group else f"row:{row.id}"


def _in_hash_order(rows: Sequence[DataRow], seed: int) -> tuple[DataRow, ...]:
    # Another salt than `_unit`'s, so that groups are mixed, not lined up one after the other.
    return tuple(sorted(rows, key=lambda row: (_digest(f"order:{row.id}", seed), row.id)))


def _describe_empty(loaded: LoadedData, config: DataConfig, pools: tuple[list[DataRow], ...], overlapping: int) -> str:
    counts = ", ".join(f"{name} {len(pool)}" for name, pool in zip(_NAMES, pools, strict=True))
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
