"""Runs the trials of a study one after the other, in this process; several runners may share a study.

Which trial comes next is read from the study alone, so a runner may be killed at any moment and started again, here or
on another machine.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import optuna
from optuna.trial import FrozenTrial, TrialState

from promptopt.candidate import Candidate
from promptopt.config.experiment import SearchConfig
from promptopt.errors import ContextLengthError, DataError, PromptRefusedError, StageError, TrainingError
from promptopt.evaluation.throughput import Speed, Throughput
from promptopt.records import ExampleRecord, TrialRecord
from promptopt.study.artifacts import Artifacts
from promptopt.study.costs import serving_cost
from promptopt.study.objective import CandidateObjective, TrialResult, Weights, best_scores
from promptopt.study.phases import Phase, Plan, best_tuned, ranked
from promptopt.study.pruning import raced_out_value
from promptopt.study.sampling import seeded_sampler
from promptopt.study.space import FROZEN, TUNED, SearchSpace, Suggestion
from promptopt.study.task import SearchTask
from promptopt.study.trials import (
    ASKED,
    NOTED,
    TRAINED,
    claim_trial,
    fill_slots,
    finished,
    heartbeat,
    resume_trial,
    retry_stale,
    slot_of,
    tell_trial,
    trial_record,
    unfinished,
)
from promptopt.study.tuner import LORA_GGUF, TrainedWeights, TrainingProgress, Tuner, stopped_scores

_POLL_S = 1.0


@dataclass(frozen=True)
class SearchProgress:
    """What a search has come to so far; handed to `on_progress` after every example and training step.

    Attributes:
        trial: slot of the trial that runs; trials: how many there will be.
        examples: examples this trial has seen; mean_score: their mean.
        best: value of the best finished trial, None before the first.
        speed: how fast it goes, with the time left for all trials, if later ones see as many examples as those so far.
        training: what the trial's training does; empty while examples are scored.
    """

    trial: int
    trials: int
    examples: int
    rows: int
    mean_score: float
    best: float | None
    speed: Speed = field(default_factory=Speed)
    training: str = ""


@dataclass
class StudyRunner:
    """One process at work on a study.

    Attributes:
        alone: whether no other process works on the study, so that a running trial is one that a kill left.
        leads: whether this is the process that began the study.
        tuner: None where no weights are trained.
        artifacts: where candidates and weights go for other workers; None where one process works alone.
        on_trials: called with all finished trials after every trial of this runner.
    """

    study: optuna.Study
    plan: Plan
    space: SearchSpace
    task: SearchTask
    objective: CandidateObjective
    config: SearchConfig
    seed: int
    tuner: Tuner | None = None
    artifacts: Artifacts | None = None
    alone: bool = True
    leads: bool = True
    on_progress: Callable[[SearchProgress], None] | None = None
    on_trials: Callable[[list[TrialRecord]], None] | None = None
    throughput: Throughput = field(default_factory=Throughput)
    _earlier: list[TrialRecord] = field(default_factory=list)

    def run(self) -> int:
        """Run trials until all of the study are finished, waiting for those of other workers; return how many."""
        done = 0
        while (trial := self._next()) is not None:
            with heartbeat(self.study, trial):
                self._run_trial(trial)
            done += 1
            self._tell()
        # Other workers may have finished the last ones.
        self._tell()
        return done

    def _tell(self) -> None:
        if self.on_trials:
            self.on_trials(self.records())

    def records(self) -> list[TrialRecord]:
        """Return the finished trials, in order of their slots."""
        return [trial_record(trial) for trial in finished(self.study)]

    def _next(self) -> optuna.Trial | None:
        while True:
            if not self.alone:
                retry_stale(self.study)
            open_trials = unfinished(self.study)
            if not open_trials:
                if self.leads and self._more_slots():
                    continue
                return None
            found = self._take(open_trials)
            if found is not None:
                return found
            # Others hold all that can be done now: the phase they finish opens the next.
            time.sleep(_POLL_S)

    def _more_slots(self) -> bool:
        """Queue what has no trial yet; say if there was any."""
        if self.alone:
            return fill_slots(self.study, self.plan.trials, most=1)
        # A worker may have failed a dead one's trial and be about to queue it again, or have died in between.
        time.sleep(2 * _POLL_S)
        return fill_slots(self.study, self.plan.trials)

    def _take(self, open_trials: list[FrozenTrial]) -> optuna.Trial | None:
        first = slot_of(open_trials[0])
        for trial in open_trials:
            if self.plan.needs_before(slot_of(trial)) > first:
                return None
            if trial.state is TrialState.RUNNING:
                if self.alone:
                    return resume_trial(self.study, trial)
                continue
            claimed = claim_trial(self.study, trial)
            if claimed is not None:
                return claimed
        return None

    def _run_trial(self, trial: optuna.Trial) -> None:
        slot = slot_of(trial)
        self._earlier = self.records()
        try:
            suggestion = self._suggest(trial, slot)
            candidate, weights = self._prepare(trial, slot, suggestion)
            try:
                result = self._score(trial, slot, candidate, weights)
            finally:
                if self.tuner is not None:
                    self.tuner.release(weights)
            self._note(trial, candidate, result)
        except optuna.exceptions.UpdateFinishedTrialError:
            # This worker was silent so long that another does the trial again.
            return
        except (ContextLengthError, PromptRefusedError, TrainingError, DataError) as error:
            # The trial does not fit this model or these rows: its own fault. The untouched program's is the user's, and
            # rows that frozen trials cannot use are everyone's.
            if slot == 0 or (isinstance(error, DataError) and trial.user_attrs.get(ASKED, {}).get("kind") != TUNED):
                raise
            trial.set_user_attr("error", str(error))
            tell_trial(self.study, trial, None)
            return
        tell_trial(self.study, trial, result.value)

    def _suggest(self, trial: optuna.Trial, slot: int) -> Suggestion:
        startup = self.config.sampler_startup
        given = self.plan.given(slot, self.space, self._earlier)

        def reseed(parameter: str = "") -> None:
            self.study.sampler = seeded_sampler(self.seed, slot, startup, parameter, given)

        reseed()
        # Drawn now, before any parameter is stored: a trial that goes on after a kill draws the same.
        _ = trial.relative_params
        suggestion = self.space.suggest(trial, reseed)
        asked = {
            "kind": FROZEN if suggestion.recipe is None else TUNED,
            "candidate": suggestion.candidate.key(),
            "layout": suggestion.candidate.layout.model_dump(mode="json"),
        }
        trial.set_user_attr(ASKED, asked)
        return suggestion

    def _prepare(self, trial: optuna.Trial, slot: int, suggestion: Suggestion) -> tuple[Candidate, Weights]:
        """Return the candidate and the weights to score: trained here, or those of the best trial before."""
        if suggestion.recipe is None or self.tuner is None:
            return suggestion.candidate, Weights(self.task.lm)
        earlier = self._earlier
        best = best_tuned(earlier)
        if self.plan.phase(slot) is Phase.AFTER and best is not None:
            trained = self.fetch_weights(best)
            trial.set_user_attr("weights_of", best.number)
            return self.tuner.student(suggestion.candidate, trained.recipe), self.tuner.weights(best.number, trained)
        teacher = ranked([record for record in earlier if record.number < self.plan.prompts])
        asked = self._candidate_of(teacher[0]) if teacher else suggestion.candidate
        show = self._training_shown(slot)
        trained = self.tuner.train(trial, slot, asked, suggestion.candidate, suggestion.recipe, show)
        if self.artifacts is not None:
            self.artifacts.keep(self.study, trial, self.tuner.folder(slot), trained.lora_sha256)
        trial.set_user_attr("weights_of", slot)
        trial.set_user_attr(
            TRAINED, {"rows": trained.train_rows, "steps": trained.steps, "lora_sha256": trained.lora_sha256}
        )
        return trained.candidate, self.tuner.weights(slot, trained)

    def fetch_weights(self, record: TrialRecord) -> TrainedWeights:
        """Return the weights that the trial `record` trained, brought into this run's folder if another worker did.

        Raises:
            StageError: they are nowhere.
        """
        if self.tuner is None:
            raise StageError("This process trains no weights.")
        slot, key = record.number, record.lora_sha256
        trained = self.tuner.trained(slot)
        if (trained is None or trained.lora_sha256 != key) and self.artifacts is not None:
            self.tuner.forget(slot)
            self.artifacts.fetch(self.study, slot, self.tuner.folder(slot), key)
            trained = self.tuner.trained(slot)
        if trained is None or trained.lora_sha256 != key:
            raise StageError(
                f"The weights of trial {slot} are not in {self.tuner.folder(slot)}. With several machines, set "
                "search.artifacts to a folder that all of them see, or to s3://bucket/prefix."
            )
        return trained

    def _candidate_of(self, record: TrialRecord) -> Candidate:
        return self.space.suggest(optuna.trial.FixedTrial(record.params)).candidate  # type: ignore[arg-type]

    def _score(self, trial: optuna.Trial, slot: int, candidate: Candidate, weights: Weights) -> TrialResult:
        trained = self.tuner.trained(slot) if self.tuner is not None else None
        if self.tuner is not None and trained is not None and trained.stopped:
            records, scores = stopped_scores(self.tuner, trial, slot)
            best = best_scores(self.study)
            mean = sum(scores.values()) / max(1, len(scores))
            value = raced_out_value(scores, best) if scores.keys() & best.keys() else mean
            return TrialResult(value, mean, True, records)
        return self.objective.run(trial, candidate, weights, self._examples_shown(slot), self.throughput)

    def _note(self, trial: optuna.Trial, candidate: Candidate, result: TrialResult) -> None:
        """Keep with the trial what the report needs of it, and what it costs."""
        records = result.records
        slot = trial.user_attrs.get("weights_of")
        lora = self.tuner.folder(slot) / LORA_GGUF if self.tuner is not None and slot is not None else None
        cost = serving_cost(self.task.program, candidate, self.task.lm, self.objective.rows, records, lora)
        beyond = cost.beyond(self.config.constraints)
        noted = {
            **vars(cost), "mean_score": result.mean_score, "raced_out": result.raced_out, "examples": len(records),
            "parse_failures": round(cost.parse_failure_rate * len(records)), "constraints": beyond,
        }  # fmt: skip
        trial.set_user_attr(NOTED, noted)
        for name, value in beyond.items():
            trial.set_constraint(name, value)

    def _examples_shown(self, slot: int) -> Callable[[ExampleRecord], None] | None:
        if self.on_progress is None:
            return None
        report, rows = self.on_progress, len(self.objective.rows)
        best, later = _best_value(self._earlier), self._later_examples(rows, self._earlier)
        seen: list[float] = []

        def on_record(record: ExampleRecord) -> None:
            seen.append(record.score or 0.0)
            speed = self.throughput.speed(rows - len(seen) + later)
            mean = sum(seen) / len(seen)
            report(SearchProgress(slot, self.plan.trials, len(seen), rows, mean, best, speed))

        return on_record

    def _training_shown(self, slot: int) -> Callable[[TrainingProgress], None] | None:
        if self.on_progress is None:
            return None
        report, best = self.on_progress, _best_value(self._earlier)

        def on_training(progress: TrainingProgress) -> None:
            report(
                SearchProgress(slot, self.plan.trials, 0, len(self.objective.rows), 0.0, best, training=progress.text)
            )

        return on_training

    def _later_examples(self, rows: int, records: Sequence[TrialRecord]) -> float:
        """Return how many examples the trials after this one will see, if they are stopped as those so far."""
        seen = [trial.examples for trial in records]
        left = self.plan.trials - len(records) - 1
        return left * (sum(seen) / len(seen) if seen else rows)


def _best_value(records: Sequence[TrialRecord]) -> float | None:
    return max((record.value for record in records if record.value is not None), default=None)
