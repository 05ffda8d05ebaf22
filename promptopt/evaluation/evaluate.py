"""Runs a program on examples, one by one: program x candidate x LM x rows -> per-example records.

The one evaluator of the house: search, final evaluation and teacher rollouts all come through here. Knows nothing of
trials or stages. No dspy.Evaluate in between: it scores a dead server and a wrong answer both 0.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import dspy
from dspy.utils.exceptions import AdapterParseError
from pydantic import JsonValue

from promptopt.candidate import Candidate
from promptopt.errors import DataError, PromptoptError
from promptopt.lm.collect import collect_calls
from promptopt.lm.protocol import Completion
from promptopt.metrics.base import Metric, Score
from promptopt.records import DataRow, ExampleRecord, Outcome
from promptopt.rundir import append_jsonl, read_jsonl


@dataclass(frozen=True)
class TraceStep:
    """One predictor call inside a program: which predictor, what went in, what came out."""

    predictor: str
    inputs: dict[str, JsonValue]
    outputs: dict[str, JsonValue]


class Evaluator:
    """One program with one candidate on one LM, ready to answer rows.

    Args:
        program: any dspy.Module; it is copied, never changed.
        candidate: applied to the copy.
        lm: any dspy.LM.
        metric: decides the score; an undecided one makes the example UNSCORED.
        inputs: the fields of a row that the program is given.
    """

    def __init__(
        self, program: dspy.Module, candidate: Candidate, lm: dspy.BaseLM, metric: Metric, inputs: Sequence[str]
    ) -> None:
        self._program = candidate.apply(program.deepcopy())
        self._names = {id(predictor): name for name, predictor in self._program.named_predictors()}
        self._lm = lm
        self._metric = metric
        self._inputs = tuple(inputs)

    def evaluate(self, row: DataRow) -> ExampleRecord:
        """Return what became of one row. A completion that does not parse is data; a broken system raises."""
        return self._run(row)[0]

    def rollout(self, row: DataRow) -> tuple[ExampleRecord, tuple[TraceStep, ...]]:
        """Return the record of `row` and every predictor call that led to it."""
        return self._run(row)

    def _run(self, row: DataRow) -> tuple[ExampleRecord, tuple[TraceStep, ...]]:
        inputs = {name: row.fields[name] for name in self._inputs}
        started = time.perf_counter()
        with collect_calls() as calls, dspy.context(lm=self._lm, trace=[], track_usage=True):
            try:
                prediction = self._program(**inputs)
            except AdapterParseError as error:
                usage = _Usage.of(calls, None, time.perf_counter() - started)
                failed = usage.record(
                    row.id, Outcome.PARSE_FAILED, 0.0, completion=str(error.lm_response), error=_first_line(error)
                )
                return failed, ()
            except Exception as error:
                raise _own_error(error) from error
            trace = tuple(self._steps(dspy.settings.trace or []))
        usage = _Usage.of(calls, prediction, time.perf_counter() - started)
        score = self._score(row, prediction)
        record = usage.record(
            row.id,
            Outcome.UNSCORED if score.value is None else Outcome.SCORED,
            score.value,
            completion=calls[-1].text if calls else "",
            feedback=score.feedback,
            details=dict(score.details),
            prediction=_plain_fields(prediction),
        )
        return record, trace

    def _score(self, row: DataRow, prediction: dspy.Prediction) -> Score:
        try:
            return self._metric.score(row.fields, prediction)
        except PromptoptError:
            raise
        except Exception as error:
            raise DataError(
                f"The metric {self._metric.name!r} failed on row {row.id}: {type(error).__name__}: {error}. "
                "A metric gives a bad prediction a low score, and raises DataError only for a row it cannot use."
            ) from error

    def _steps(self, trace: Sequence[tuple[dspy.Module, dict[str, object], dspy.Prediction]]) -> Iterator[TraceStep]:
        for predictor, inputs, prediction in trace:
            name = self._names.get(id(predictor))
            if name is not None:
                yield TraceStep(name, {key: _plain(value) for key, value in inputs.items()}, _plain_fields(prediction))


def evaluate_rows(
    evaluator: Evaluator,
    rows: Sequence[DataRow],
    store: Path | None = None,
    on_record: Callable[[ExampleRecord], None] | None = None,
) -> list[ExampleRecord]:
    """Return one record per row, in the order of `rows`.

    Args:
        store: JSONL file of records; those it already holds are not computed again, new ones are appended at once.
        on_record: called after every row, whether computed or read.
    """
    return list(iterate_rows(evaluator, rows, store, on_record))


def iterate_rows(
    evaluator: Evaluator,
    rows: Sequence[DataRow],
    store: Path | None = None,
    on_record: Callable[[ExampleRecord], None] | None = None,
) -> Iterator[ExampleRecord]:
    """Yield what `evaluate_rows` returns, record by record, so that a race can stop in between."""
    known = {record.example_id: record for record in read_jsonl(store, ExampleRecord)} if store else {}
    for row in rows:
        record = known.get(row.id)
        if record is None:
            record = evaluator.evaluate(row)
            if store:
                append_jsonl(store, record)
        if on_record:
            on_record(record)
        yield record


@dataclass(frozen=True)
class _Usage:
    prompt_tokens: int
    prompt_tokens_computed: int
    completion_tokens: int
    latency_s: float

    @classmethod
    def of(cls, calls: Sequence[Completion], prediction: dspy.Prediction | None, wall_s: float) -> "_Usage":
        if calls:
            return cls(
                sum(call.prompt_tokens for call in calls),
                sum(call.prompt_tokens_computed for call in calls),
                sum(call.completion_tokens for call in calls),
                sum(call.latency_s for call in calls),
            )
        # An LM that is not ours reports only what its provider says, through DSPy's usage tracker.
        usage = (prediction.get_lm_usage() or {}) if prediction is not None else {}
        prompt = sum(int(entry.get("prompt_tokens") or 0) for entry in usage.values())
        answer = sum(int(entry.get("completion_tokens") or 0) for entry in usage.values())
        return cls(prompt, prompt, answer, wall_s)

    def record(self, row_id: str, outcome: Outcome, score: float | None, **fields: object) -> ExampleRecord:
        return ExampleRecord.model_validate(
            {
                "example_id": row_id,
                "outcome": outcome,
                "score": score,
                "prompt_tokens": self.prompt_tokens,
                "prompt_tokens_computed": self.prompt_tokens_computed,
                "completion_tokens": self.completion_tokens,
                "latency_s": self.latency_s,
                **fields,
            }
        )


def _plain_fields(prediction: dspy.Prediction) -> dict[str, JsonValue]:
    return {str(name): _plain(value) for name, value in prediction.items()}


def _plain(value: object) -> JsonValue:
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    dump = getattr(value, "model_dump", None)
    return dump(mode="json") if dump else str(value)


def _own_error(error: BaseException) -> BaseException:
    """Return the promptopt error that DSPy wrapped on its way out of our engine, or `error` itself."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, PromptoptError):
            return cause
        cause = cause.__cause__ or cause.__context__
    return error


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
