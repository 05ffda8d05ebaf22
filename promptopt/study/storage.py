"""Where a study lives, and how one that was interrupted goes on. Knows Optuna, no prompts."""

import hashlib
import logging
import re
import threading
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState
from pydantic import JsonValue

from promptopt.config.redact import without_passwords
from promptopt.errors import ConfigError, StageError
from promptopt.records import TrialRecord

optuna.logging.set_verbosity(optuna.logging.WARNING)
logging.getLogger("alembic").setLevel(logging.WARNING)

STORAGE_VERSION = 1
"""Of what promptopt keeps in a study: slots, notes of trials. Raised when an older promptopt could not go on."""

SLOT = "slot"
ASKED = "asked"
"""Trial attribute: kind, candidate and layout of what was tried."""
TRAINED = "trained"
"""Trial attribute: rows, steps and LoRA GGUF of the trial's own training."""
READY = "ready"
"""Study attribute: that pools, earlier trials and slots are there."""
NOTED = "noted"
"""Trial attribute: what scoring came to, and its costs. One attribute, because each is a commit."""
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


def fill_slots(study: optuna.Study, trials: int, *, most: int | None = None) -> bool:
    """Queue a trial for every slot that has none and return whether there were any; for the leading process alone.

    From then on workers may join.

    Args:
        most: only for so many slots, the first ones: a process that works alone needs one at a time, and waiting
            trials are read from the database whenever trials are listed.
    """
    filled = {trial.user_attrs.get(SLOT) for trial in study.get_trials(deepcopy=False) if not _was_left(trial)}
    empty = [slot for slot in range(trials) if slot not in filled]
    for slot in empty[:most]:
        study.enqueue_trial({}, user_attrs={SLOT: slot})
    if READY not in study.user_attrs:
        study.set_user_attr(READY, True)
    return bool(empty)


def slot_of(trial: FrozenTrial | optuna.Trial) -> int:
    """Return the trial's place in the plan; a trial that another worker died over has the place of that one."""
    return int(trial.user_attrs.get(SLOT, trial.number))


def seeded_sampler(
    seed: int, number: int, startup: int, parameter: str = "", given: Mapping[str, JsonValue] | None = None
) -> optuna.samplers.BaseSampler:
    """Return the sampler of the trial at slot `number`, or of one `parameter` of it; `given` ones are as given.

    Every trial, and within a trial every parameter that is drawn by itself, has a seed of its own, so that a study that
    was killed and started again proposes exactly what the unbroken one would have proposed.
    """
    digest = hashlib.sha256(f"{seed}:{number}:{parameter}".encode()).digest()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        # In groups: the recipe's parameters, which frozen trials lack, are modelled together too.
        sampler = optuna.samplers.TPESampler(
            seed=int.from_bytes(digest[:4], "big"), n_startup_trials=startup, group=True, multivariate=True
        )
        return optuna.samplers.PartialFixedSampler(dict(given), sampler) if given else sampler


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


def claim_trial(study: optuna.Study, trial: FrozenTrial) -> optuna.Trial | None:
    """Return the waiting `trial` as a running one of this process; None where another was faster."""
    try:
        if _interval(study) is not None:
            # Before the claim: a process that dies right after it must leave a sign of life that grows old.
            study._storage.record_heartbeat(trial._trial_id)  # type: ignore[attr-defined]
        if study._storage.set_trial_state_values(trial._trial_id, state=TrialState.RUNNING):
            return optuna.Trial(study, trial._trial_id)
    except optuna.exceptions.UpdateFinishedTrialError:
        pass
    return None


def resume_trial(study: optuna.Study, trial: FrozenTrial) -> optuna.Trial:
    """Return a trial that a process of this run left running."""
    return optuna.Trial(study, trial._trial_id)


@contextmanager
def heartbeat(study: optuna.Study, trial: optuna.Trial) -> Iterator[None]:
    """Send signs of life for `trial` meanwhile, where the study has several workers."""
    storage = study._storage
    interval = _interval(study)
    if interval is None:
        yield
        return
    over = threading.Event()

    def beat() -> None:
        while not over.is_set():
            try:
                storage.record_heartbeat(trial._trial_id)  # type: ignore[attr-defined]
            except Exception:
                # A server that is away for a moment must not end the work; one that stays away fails the next score.
                time.sleep(min(1.0, interval))
            over.wait(interval)

    thread = threading.Thread(target=beat, name="study-heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _interval(study: optuna.Study) -> int | None:
    return getattr(study._storage, "get_heartbeat_interval", lambda: None)()


def tell_trial(study: optuna.Study, trial: optuna.Trial, value: float | None) -> None:
    """Finish the trial with `value`, or as failed with None; not one that was taken from this process meanwhile."""
    try:
        study.tell(trial, value, state=TrialState.FAIL if value is None else None)
    except ValueError:
        if not study._storage.get_trial(trial._trial_id).state.is_finished():
            raise


def retry_stale(study: optuna.Study) -> None:
    """Queue the trials of dead workers again, under their slots and with their parameters."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        optuna.storages.fail_stale_trials(study)


def unfinished(study: optuna.Study) -> list[FrozenTrial]:
    """Return the waiting and running trials in order of their slots."""
    states = (TrialState.WAITING, TrialState.RUNNING)
    return sorted(study.get_trials(deepcopy=False, states=states), key=slot_of)


def finished(study: optuna.Study) -> list[FrozenTrial]:
    """Return the finished trials in order of their slots; not those that a dead worker left and another does again."""
    states = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
    ended = study.get_trials(deepcopy=False, states=states)
    return sorted((trial for trial in ended if not _was_left(trial)), key=slot_of)


def _was_left(trial: FrozenTrial) -> bool:
    return trial.state is TrialState.FAIL and "error" not in trial.user_attrs


def trial_record(trial: FrozenTrial) -> TrialRecord:
    """Return a finished trial as the record that `trials.jsonl` holds."""
    own = trial.user_attrs
    asked, noted, trained = own.get(ASKED, {}), own.get(NOTED, {}), own.get(TRAINED, {})
    failed = trial.state is not TrialState.COMPLETE
    layout: dict[str, JsonValue] = asked.get("layout", {})
    unmet = {name: value for name, value in dict(noted.get("constraints", {})).items() if value > 0}
    return TrialRecord(
        number=slot_of(trial),
        state="failed" if failed else "raced_out" if noted.get("raced_out") else "complete",
        value=None if failed else trial.value,
        mean_score=noted.get("mean_score"),
        examples=int(noted.get("examples", 0)),
        candidate_key=str(asked.get("candidate", "")),
        layout=layout,
        params=dict(trial.params),
        parse_failures=int(noted.get("parse_failures", 0)),
        prompt_tokens=float(noted.get("prompt_tokens", 0.0)),
        completion_tokens=float(noted.get("completion_tokens", 0.0)),
        serving_tokens=noted.get("serving_tokens"),
        kind=asked.get("kind", "frozen"),
        weights_of=own.get("weights_of"),
        feasible=not unmet,
        unmet=unmet,
        train_rows=int(trained.get("rows", 0)),
        train_steps=int(trained.get("steps", 0)),
        lora_sha256=str(trained.get("lora_sha256", "")),
        error=str(own.get("error", "")),
    )
