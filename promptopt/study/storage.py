"""Where a study lives, and how one that was interrupted goes on. Knows Optuna, no prompts."""

import hashlib
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState
from pydantic import JsonValue

from promptopt.errors import StageError
from promptopt.records import TrialRecord

optuna.logging.set_verbosity(optuna.logging.WARNING)
logging.getLogger("alembic").setLevel(logging.WARNING)


def open_study(url: str | None, name: str, pruner: optuna.pruners.BasePruner) -> optuna.Study:
    """Return the study `name` in the storage `url` (None: in memory), made where it does not exist."""
    storage = None if url is None else optuna.storages.RDBStorage(url)
    if storage is not None and storage.engine.dialect.name == "sqlite":
        _write_ahead(storage.engine)
    return optuna.create_study(
        storage=storage, study_name=name, direction="maximize", pruner=pruner, load_if_exists=True
    )


def _write_ahead(engine: Any) -> None:
    """Let SQLite append to a log instead of syncing every score to the disk: a report costs a third.

    A killed process loses nothing; a power cut may lose the last scores, which are then computed again.
    """
    from sqlalchemy import event

    def set_pragmas(connection: Any, record: Any) -> None:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")

    event.listen(engine, "connect", set_pragmas)
    # Connections that are open already would go on as they were.
    engine.dispose()


def seeded_sampler(seed: int, number: int, startup: int, parameter: str = "") -> optuna.samplers.TPESampler:
    """Return the sampler of trial `number`, or of one `parameter` of it.

    Every trial, and within a trial every parameter that is drawn by itself, has a seed of its own, so that a study that
    was killed and started again proposes exactly what the unbroken one would have proposed.
    """
    digest = hashlib.sha256(f"{seed}:{number}:{parameter}".encode()).digest()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(seed=int.from_bytes(digest[:4], "big"), n_startup_trials=startup)


@contextmanager
def storage_errors(folder: Path | None) -> Iterator[None]:
    """Raise a StageError where the study's storage fails, e.g. because the disk is full."""
    try:
        yield
    except optuna.exceptions.StorageInternalError as error:
        raise StageError(
            f"The study in {folder or 'memory'} cannot be written: {error.__cause__ or error}. Finished trials "
            "are kept; free some space or mend the storage, and give the same command again."
        ) from error


def next_trial(study: optuna.Study) -> optuna.Trial:
    """Return the trial that a killed process left running, or a new one."""
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    return optuna.Trial(study, running[0]._trial_id) if running else study.ask()


def finished(study: optuna.Study) -> list[FrozenTrial]:
    """Return the finished trials in order of number."""
    states = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
    return sorted(study.get_trials(deepcopy=False, states=states), key=lambda trial: trial.number)


def trial_record(trial: FrozenTrial) -> TrialRecord:
    """Return a finished trial as the record that `trials.jsonl` holds."""
    noted = trial.user_attrs
    failed = trial.state is not TrialState.COMPLETE
    layout: dict[str, JsonValue] = noted.get("layout", {})
    return TrialRecord(
        number=trial.number,
        state="failed" if failed else "raced_out" if noted.get("raced_out") else "complete",
        value=None if failed else trial.value,
        mean_score=noted.get("mean_score"),
        examples=int(noted.get("examples", 0)),
        candidate_key=str(noted.get("candidate", "")),
        layout=layout,
        params=dict(trial.params),
        parse_failures=int(noted.get("parse_failures", 0)),
        prompt_tokens=float(noted.get("prompt_tokens", 0.0)),
        error=str(noted.get("error", "")),
    )
