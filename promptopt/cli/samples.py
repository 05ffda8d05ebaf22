"""`promptopt samples`: how many examples it takes to see a difference. Prints; the arithmetic is evaluation's."""

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING

from promptopt.errors import ConfigError, DataError

if TYPE_CHECKING:
    from promptopt.records import ExampleRecord

_CHANGED = (0.05, 0.1, 0.2, 0.3, 0.5)
"""Shares of examples that change between right and wrong, where no records say how many do."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--difference", type=float, required=True, metavar="X", help="of two mean scores, e.g. 0.05")
    parser.add_argument("--power", type=float, default=0.8, help="chance to find a difference that is there")
    parser.add_argument(
        "--records", type=Path, nargs=2, metavar="FILE", help="two evaluations, to measure how much examples vary"
    )


def print_samples(arguments: argparse.Namespace) -> int:
    """Print how many examples show a difference of `--difference`.

    Raises:
        ConfigError: the difference or the power is out of range. DataError: the records share no scored example.
    """
    from promptopt.evaluation.statistics import examples_needed

    difference, power = arguments.difference, arguments.power
    if not 0 < difference < 1 or not 0 < power < 1:
        raise ConfigError(
            f"--difference and --power lie between 0 and 1; got {difference:g} and {power:g}. Five points are 0.05."
        )
    sure = f"in {power:.0%} of all tries (two-sided, 95 %)"
    if arguments.records:
        deviation, n = _deviation(*arguments.records)
        needed = examples_needed(difference, deviation, power)
        print(
            f"{needed:,} examples show a difference of {difference:g} {sure}: from example to example the "
            f"difference of these two systems varies by {deviation:.3f} (standard deviation, {n} examples)."
        )
        return 0
    print(f"Examples that show a difference of {difference:g} {sure},")
    print("where each is right or wrong, by the share that changes from one system to the other:")
    for changed in _CHANGED:
        if changed > difference:
            deviation = math.sqrt(changed - difference**2)
            print(f"  {changed:>4.0%}  {examples_needed(difference, deviation, power):>7,}")
    print("Two evaluations of your own say it for your task: --records runs/A/evaluate/x.jsonl runs/A/evaluate/y.jsonl")
    return 0


def _deviation(first: Path, second: Path) -> tuple[float, int]:
    """Return the standard deviation of the difference per example, and how many examples both systems have."""
    from statistics import stdev

    from promptopt.evaluation.compare import scores_by_id

    one, other = (scores_by_id(_read(path), str(path)) for path in (first, second))
    shared = sorted(one.keys() & other.keys())
    if len(shared) < 2:
        raise DataError(f"{first} and {second} share {len(shared)} scored examples; at least 2 are needed.")
    deviation = stdev(other[key] - one[key] for key in shared)
    if deviation == 0:
        raise DataError(f"{first} and {second} differ by the same amount on every example: any number shows that.")
    return deviation, len(shared)


def _read(path: Path) -> "list[ExampleRecord]":
    from pydantic import ValidationError

    from promptopt.records import ExampleRecord
    from promptopt.rundir import read_jsonl

    if not path.exists():
        raise DataError(f"There is no {path}. Evaluations lie in runs/<name>/evaluate/<column>.jsonl.")
    try:
        return read_jsonl(path, ExampleRecord)
    except (ValidationError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is no file of evaluation records: {str(error).splitlines()[0]}") from error
