"""The objective of every trial: a candidate's examples, one by one, raced against the best. Suggests nothing."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import dspy
import optuna

from promptopt.candidate import Candidate
from promptopt.config.experiment import RacingConfig
from promptopt.evaluation.evaluate import Evaluator, iterate_rows
from promptopt.evaluation.throughput import Throughput
from promptopt.metrics.base import Metric
from promptopt.records import DataRow, ExampleRecord
from promptopt.study.pruning import SCORES, is_look, look_points, raced_out_value, scores_of


@dataclass(frozen=True)
class TrialResult:
    """What one trial came to.

    Attributes:
        value: what the sampler is told; see TrialRecord.
        raced_out: whether it was stopped before it had seen every example.
    """

    value: float
    mean_score: float
    raced_out: bool
    records: tuple[ExampleRecord, ...]


@dataclass(frozen=True)
class Weights:
    """What answers in a trial.

    Attributes:
        key: of the LoRA weights, for the names of files; "" for the base's own weights.
    """

    lm: dspy.BaseLM
    key: str = ""


@dataclass(frozen=True)
class CandidateObjective:
    """Scores candidates, on the base's weights or on tuned ones.

    Attributes:
        rows: the validation rows, in the one order all trials share; a row's position is its step, the same example in
            every trial, which is what the paired test needs.
        store: folder of one JSONL file per candidate and weights, so that no example is ever computed twice; None keeps
            nothing.
        parallel: rows that run at once; None = as many as the LM answers at once. The result does not depend on it.
    """

    program: dspy.Module
    metric: Metric
    inputs: tuple[str, ...]
    rows: Sequence[DataRow]
    racing: RacingConfig
    store: Path | None = None
    parallel: int | None = None

    def evaluator(self, candidate: Candidate, weights: Weights) -> Evaluator:
        """Return what answers and scores rows under `candidate`."""
        return Evaluator(self.program, candidate, weights.lm, self.metric, self.inputs)

    def run(
        self,
        trial: optuna.Trial,
        candidate: Candidate,
        weights: Weights,
        on_record: Callable[[ExampleRecord], None] | None = None,
        throughput: Throughput | None = None,
    ) -> TrialResult:
        """Return the result of `candidate` as `trial`; a broken system raises."""
        name = "-".join([candidate.key()[:24], *([weights.key[:16]] if weights.key else [])])
        store = self.store / f"{name}.jsonl" if self.store else None
        # Looks before the last that a killed process had taken are not taken again; that one may lack its verdict.
        passed = len(trial.user_attrs.get(SCORES, []))
        records: list[ExampleRecord] = []
        # Up to the next look nothing can stop the trial: so far rows may run ahead without being wasted.
        stops = look_points(self.racing, len(self.rows)) if self.racing.enabled else ()
        running = iterate_rows(
            self.evaluator(candidate, weights),
            self.rows,
            store,
            on_record,
            parallel=self.parallel,
            stops=stops,
            throughput=throughput,
        )
        with closing(running):
            for record in running:
                records.append(record)
                seen = len(records)
                if not passed <= seen < len(self.rows) or not is_look(self.racing, seen):
                    continue
                _note_scores(trial, records)
                if trial.should_prune():
                    value = raced_out_value(_by_step(records), best_scores(trial.study))
                    return TrialResult(value, _mean(records), True, tuple(records))
        _note_scores(trial, records)
        return TrialResult(_mean(records), _mean(records), False, tuple(records))


def best_scores(study: optuna.Study) -> Mapping[int, float]:
    """Return the best trial's scores by step; empty before the first trial that may win."""
    try:
        return scores_of(study.best_trial)
    except ValueError:
        return {}


def _note_scores(trial: optuna.Trial, records: Sequence[ExampleRecord]) -> None:
    trial.set_user_attr(SCORES, [record.score for record in records])
    # For people who look at the study: the mean so far.
    if len(records) not in trial.study._storage.get_trial(trial._trial_id).intermediate_values:
        trial.report(_mean(records), len(records))


def _by_step(records: Sequence[ExampleRecord]) -> dict[int, float]:
    return {step: record.score for step, record in enumerate(records) if record.score is not None}


def _mean(records: Sequence[ExampleRecord]) -> float:
    scores = [record.score for record in records if record.score is not None]
    return sum(scores) / len(scores) if scores else 0.0
