"""The trials of a study: queued in slots, claimed, kept alive, finished, read. Knows Optuna, no prompts."""

import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import optuna
from optuna.trial import FrozenTrial, TrialState
from pydantic import JsonValue

from promptopt.records import TrialRecord
from promptopt.study.storage import READY

SLOT = "slot"
"""Trial attribute: place in the plan."""
ASKED = "asked"
"""Trial attribute: kind, candidate and layout of what was tried."""
TRAINED = "trained"
"""Trial attribute: rows, steps and LoRA GGUF of the trial's own training."""
NOTED = "noted"
"""Trial attribute: what scoring came to, and its costs. One attribute, because each is a commit."""


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
