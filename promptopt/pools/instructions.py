"""The instruction pool: the program's own instructions first, then written variants."""

from collections.abc import Sequence


def instruction_pool(own: str, variants: Sequence[str]) -> tuple[str, ...]:
    """Return `own` and the variants that differ from it and from each other, in order."""
    return tuple(dict.fromkeys([own, *variants]))
