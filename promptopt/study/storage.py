"""Where a study lives: opened, checked and closed. Knows Optuna, no trials and no prompts."""

import logging
import re
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna

from promptopt.config.redact import without_passwords
from promptopt.errors import ConfigError, StageError

optuna.logging.set_verbosity(optuna.logging.WARNING)
logging.getLogger("alembic").setLevel(logging.WARNING)

STORAGE_VERSION = 1
"""Of what promptopt keeps in a study: slots, notes of trials. Raised when an older promptopt could not go on."""
READY = "ready"
"""Study attribute: that pools, earlier trials and slots are there."""
_STALE_AFTER_BEATS = 3
_READY_S = 600.0


def open_study(
    url: str | None,
    name: str,
    pruner: optuna.pruners.BasePruner,
    *,
    heartbeat_s: int | None = None,
    join: bool = False,
    patience_s: float = 0.0,
) -> optuna.Study:
    """Return the study `name` in the storage `url` (None: in memory), made where it does not exist.

    Args:
        heartbeat_s: seconds between signs of life of a running trial; None where one process works alone.
        join: only take one that exists, waiting up to `patience_s` seconds for it.

    Raises:
        StageError: the storage cannot be reached, was written by another version, or has no such study.
    """
    storage = None if url is None else _storage(url, heartbeat_s)
    if storage is not None and storage.engine.dialect.name == "sqlite":
        _write_ahead(storage.engine)
    if join and storage is not None:
        until = time.monotonic() + patience_s
        while name not in optuna.get_all_study_names(storage) and time.monotonic() < until:
            time.sleep(1.0)
    try:
        if join and storage is not None:
            return _when_ready(optuna.load_study(storage=storage, study_name=name, pruner=pruner))
        return optuna.create_study(
            storage=storage, study_name=name, direction="maximize", pruner=pruner, load_if_exists=True
        )
    except KeyError as error:
        known = ", ".join(optuna.get_all_study_names(storage)) if storage is not None else ""
        if storage is not None:
            storage.remove_session()
            storage.engine.dispose()
        raise StageError(
            f"The storage has no study {name!r}; it has: {known or '(none)'}. Start `promptopt run` (or `promptopt "
            "search`) with the same file and storage first; a study belongs to one experiment file, one version of its "
            "data, program and model."
        ) from error


def _storage(url: str, heartbeat_s: int | None) -> optuna.storages.RDBStorage:
    from sqlalchemy.exc import NoSuchModuleError

    # Without a driver's name SQLAlchemy takes psycopg2; promptopt[postgresql] brings its successor.
    url = re.sub(r"^postgres(ql)?://", "postgresql+psycopg://", url)
    stale = None if heartbeat_s is None else heartbeat_s * _STALE_AFTER_BEATS
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        retry = optuna.storages.RetryHeartbeatStaleTrialCallback() if heartbeat_s is not None else None
        try:
            return optuna.storages.RDBStorage(
                url,
                engine_kwargs={} if url.startswith("sqlite") else {"pool_pre_ping": True},
                heartbeat_interval=heartbeat_s,
                grace_period=stale,
                heartbeat_stale_trial_callback=retry,
            )
        except (ImportError, NoSuchModuleError) as error:
            raise ConfigError(
                f"The storage {_without_password(url)} needs a database driver that is not installed: {error}. For "
                "PostgreSQL: pip install 'promptopt[postgresql]'."
            ) from error
        except Exception as error:
            raise StageError(
                f"The storage {_without_password(url)} cannot be opened: {_first_line(error)}. Check that the server "
                "runs and the URL (postgresql+psycopg://user@host:port/database); if another version of Optuna wrote "
                "it, use that version, `optuna storage upgrade`, or another database."
            ) from error


def _when_ready(study: optuna.Study) -> optuna.Study:
    until = time.monotonic() + _READY_S
    while READY not in study.user_attrs:
        if time.monotonic() > until:
            raise StageError(
                f"The study {study.study_name!r} was begun and never filled with trials. Start the process that leads "
                "it again: `promptopt run` or `promptopt search` with the same file and storage."
            )
        time.sleep(0.5)
    return study


def _without_password(url: str) -> str:
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        return make_url(url).render_as_string(hide_password=True)
    except ArgumentError:
        return "(not a database URL)"


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]


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


def close_study(study: optuna.Study) -> None:
    """Give the storage's connections back."""
    study._storage.remove_session()
    engine = getattr(getattr(study._storage, "_backend", study._storage), "engine", None)
    if engine is not None:
        engine.dispose()


def claim_identity(study: optuna.Study, identity: Mapping[str, str], *, join: bool = False) -> None:
    """Note what the study's parameters mean, or check that they still mean it.

    Args:
        identity: part -> hash, e.g. of the space.
        join: only check.

    Raises:
        StageError: another promptopt wrote the study, or its space changed under it.
    """
    noted = study.user_attrs
    version = noted.get("promptopt_storage")
    if version is None and study.get_trials(deepcopy=False):
        raise StageError(
            f"The study {study.study_name!r} was not written by this version of promptopt: it has trials, but no "
            "storage version. Give another run_dir or storage, or delete the study."
        )
    if version is not None and version != STORAGE_VERSION:
        raise StageError(
            f"The study {study.study_name!r} was written by another version of promptopt (storage version {version}, "
            f"this one writes {STORAGE_VERSION}). Go on with that version, or give another run_dir or storage."
        )
    for part, value in identity.items():
        if noted.get(part, value) != value:
            raise StageError(
                f"The {part} of the study {study.study_name!r} changed under it: it was {str(noted[part])[:12]} and is "
                f"{value[:12]} now. A pool or space that has trials must not change: restore pools.json, or give "
                "another run_dir to start a new study."
            )
    if join:
        return
    if version is None:
        study.set_user_attr("promptopt_storage", STORAGE_VERSION)
    for part, value in identity.items():
        if part not in noted:
            study.set_user_attr(part, value)


@contextmanager
def storage_errors(where: Path | str | None) -> Iterator[None]:
    """Raise a StageError where the study's storage fails, e.g. because the disk is full or the server is gone."""
    try:
        yield
    except optuna.exceptions.StorageInternalError as error:
        raise StageError(
            f"The study in {without_passwords(str(where or 'memory'))} cannot be written: "
            f"{without_passwords(_first_line(error.__cause__ or error))}. Finished trials "
            "are kept; free some space or mend the storage, and give the same command again."
        ) from error
