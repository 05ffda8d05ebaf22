"""Where the tests find real data: $PROMPTOPT_DATA, else ../shared/data beside the repository."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


def data_folder() -> Path:
    """Return the folder that should hold the real data, whether it exists or not."""
    return Path(os.environ.get("PROMPTOPT_DATA") or REPOSITORY.parent / "shared" / "data")


def data_file(path: str) -> Path:
    """Return the real data file `path`, or skip the test where it is absent."""
    found = data_folder() / path
    if not found.exists():
        pytest.skip(f"real data absent: {found}; set PROMPTOPT_DATA to the folder that holds {path}")
    return found


def read_jsonl_file(path: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of the real data file `path`, or skip the test where it is absent."""
    with data_file(path).open(encoding="utf-8-sig", newline="\n") as file:
        for line in file:
            yield json.loads(line)
