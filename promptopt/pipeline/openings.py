"""Who opened the test split of a run: written before a row of it is read, and refused a second time without a reason.

Every look at test rows that leads to a change makes the next score on them too good (Dwork et al. 2015, "The reusable
holdout"). A run may measure one outcome of its search on them; another one takes a reason, which the report shows.
"""

import getpass
import platform
from datetime import UTC, datetime
from pathlib import Path

from promptopt.errors import StageError
from promptopt.evaluation.report_data import SplitOpening
from promptopt.pipeline.record import command_line, git_revision
from promptopt.rundir import append_jsonl, read_jsonl

_FILE = "test_openings.jsonl"


def open_test_split(run: Path, measured: str, fingerprint: str, reason: str = "") -> None:
    """Note that the test rows are read now; going on with what was begun is no second opening.

    Args:
        measured: key of what is measured on them.
        fingerprint: of the rows: other rows are another test split.
        reason: why rows that something else was measured on are read again; empty = they must not be.

    Raises:
        StageError: they were read before, for something else, and no reason is given.
    """
    before = [one for one in read_openings(run) if one.fingerprint == fingerprint]
    if any(one.measured == measured for one in before):
        return
    if before and not reason:
        raise StageError(
            f"The test split of {run} was opened by {before[-1].who} on {before[-1].when}, for another outcome of the "
            "search. Measured again after changes, it flatters them. Compare on val, take fresh test rows, or say why: "
            '--open-test-again "WHY" (it is recorded, and the report shows it).'
        )
    append_jsonl(
        run / _FILE,
        SplitOpening(
            who=f"{_user()}@{platform.node()}",
            when=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            command=" ".join(command_line()),
            git_revision=git_revision(),
            measured=measured,
            fingerprint=fingerprint,
            reason=reason if before else "",
        ),
    )


def read_openings(run: Path) -> list[SplitOpening]:
    """Return each time that the run in this folder read its test split, the first one first."""
    return read_jsonl(run / _FILE, SplitOpening)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
