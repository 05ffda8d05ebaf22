"""The objective of a frozen trial: a candidate's examples, one by one, raced against the best. Suggests nothing."""

from collections.abc import Callable, Sequence
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
from promptopt.records import DataRow, ExampleRecord, Outcome
from promptopt.study.pruning import is_look, look_points, raced_out_value


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
class FrozenObjective:
    """Scores candidates on frozen weights.

    Attributes:
        rows: the validation rows, in the one order all trials share; a row's position is its step, the same example in
            every trial, which is what the paired test needs.
        store: folder of one JSONL file per candidate, so that no example is ever computed twice; None keeps nothing.
        parallel: rows that run at once; None = as many as the LM answers at once. The result does not depend on it.
    """

    program: dspy.Module
    lm: dspy.BaseLM
    metric: Metric
    inputs: tuple[str, ...]
    rows: Sequence[DataRow]
    racing: RacingConfig
    store: Path | None = None
    parallel: int | None = None

    def run(
        self,
        trial: optuna.Trial,
        candidate: Candidate,
        on_record: Callable[[ExampleRecord], None] | None = None,
        throughput: Throughput | None = None,
    ) -> TrialResult:
        """Return the result of `candidate` as `trial`; a broken system raises."""
        evaluator = Evaluator(self.program, candidate, self.lm, self.metric, self.inputs)
        store = self.store / f"{candidate.key()[:24]}.jsonl" if self.store else None
        reported = set(trial.study.trials[trial.number].intermediate_values)
        # Looks that a killed process had passed are not taken again: the trial holds later scores by now.
        passed = max(reported, default=-1)
        records: list[ExampleRecord] = []
        scores: dict[int, float] = {}
        # Up to the next look nothing can stop the trial: so far rows may run ahead without being wasted.
        stops = look_points(self.racing, len(self.rows)) if self.racing.enabled else ()
        running = iterate_rows(
            evaluator, self.rows, store, on_record, parallel=self.parallel, stops=stops, throughput=throughput
        )
        with closing(running):
            for step, record in enumerate(running):
                records.append(record)
                if record.score is not None:
                    scores[step] = record.score
                    if step not in reported:
                        trial.report(record.score, step)
                seen = step + 1
                if passed < seen < len(self.rows) and is_look(self.racing, seen) and trial.should_prune():
                    best = trial.study.best_trial.intermediate_values
                    return TrialResult(raced_out_value(scores, best), _mean(scores), True, tuple(records))
        return TrialResult(_mean(scores), _mean(scores), False, tuple(records))


def note_result(trial: optuna.Trial, candidate: Candidate, result: TrialResult) -> None:
    """Keep with the trial what the report needs of it."""
    records = result.records
    trial.set_user_attr("candidate", candidate.key())
    trial.set_user_attr("layout", candidate.layout.model_dump(mode="json"))
    trial.set_user_attr("mean_score", result.mean_score)
    trial.set_user_attr("raced_out", result.raced_out)
    trial.set_user_attr("examples", len(records))
    trial.set_user_attr("parse_failures", sum(record.outcome is Outcome.PARSE_FAILED for record in records))
    trial.set_user_attr("prompt_tokens", sum(record.prompt_tokens for record in records) / max(1, len(records)))


def _mean(scores: dict[int, float]) -> float:
    return sum(scores.values()) / len(scores) if scores else 0.0
