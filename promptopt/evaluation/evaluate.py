"""Runs a program on examples: program x candidate x LM x rows -> per-example records.

The one evaluator of the house: search, final evaluation and teacher rollouts all come through here. Knows nothing of
trials or stages. No dspy.Evaluate in between: it scores a dead server and a wrong answer both 0.

Programs run in up to `parallel` threads, so that an LM which batches is kept busy. Everything else happens in the
consumer's thread and in the order of the rows: metrics, stored records, reports. So what is found does not depend on
how fast an answer came.
"""

import time
from bisect import bisect_left
from collections.abc import Callable, Container, Generator, Sequence
from contextlib import closing
from pathlib import Path

import dspy
from dspy.utils.exceptions import AdapterParseError

from promptopt.candidate import Candidate
from promptopt.errors import DataError, PromptoptError
from promptopt.evaluation.answer import Answer, ProgramCopies, plain_fields, usage_of_calls, usage_of_foreign_calls
from promptopt.evaluation.in_order import in_order
from promptopt.evaluation.throughput import Throughput
from promptopt.lm.collect import collect_calls
from promptopt.metrics.base import Metric, Score
from promptopt.records import DataRow, ExampleRecord, Outcome
from promptopt.rundir import append_jsonl, read_jsonl


class Evaluator:
    """One program with one candidate on one LM, ready to answer rows; `answer` may be called by several threads.

    Args:
        program: any dspy.Module; it is copied, never changed. Rows that run at the same time each have a copy of their
            own, but share what lies outside it (globals, files, clients, DSPy callbacks): that must bear several
            threads, or `parallel` must be 1. What a program remembers from one row to the next was never defined.
        candidate: applied to the copy.
        lm: any dspy.LM.
        metric: decides the score; an undecided one makes the example UNSCORED. Called by one thread.
        inputs: the fields of a row that the program is given.
    """

    def __init__(
        self, program: dspy.Module, candidate: Candidate, lm: dspy.BaseLM, metric: Metric, inputs: Sequence[str]
    ) -> None:
        self._programs = ProgramCopies(candidate.apply(program.deepcopy()))
        self._lm = lm
        self._metric = metric
        self._inputs = tuple(inputs)

    @property
    def parallel(self) -> int:
        """How many rows the LM answers at once; 1 for an LM that does not say."""
        said = getattr(self._lm, "parallel", 1)
        return max(1, said) if isinstance(said, int) else 1

    def evaluate(self, row: DataRow) -> ExampleRecord:
        """Return what became of one row. A completion that does not parse is data; a broken system raises."""
        return self.record(row, self.answer(row))

    def answer(self, row: DataRow) -> Answer:
        """Run the program on one row; safe to call from several threads.

        Raises:
            PromptoptError: the system broke, or the prompt does not fit.
        """
        inputs = {name: row.fields[name] for name in self._inputs}
        trace: list[tuple[dspy.Module, dict[str, object], dspy.Prediction]] = []
        started = time.perf_counter()
        prediction, failure = None, None
        with (
            self._programs.lent() as copy,
            collect_calls() as calls,
            dspy.context(lm=self._lm, trace=trace, track_usage=True),
        ):
            try:
                prediction = copy.program(**inputs)
            except AdapterParseError as error:
                failure = error
            except Exception as error:
                raise own_error(error) from error
            steps = () if failure else copy.steps(trace)
        wall_s = time.perf_counter() - started
        if calls:
            usage = usage_of_calls(calls)
        else:
            usage = usage_of_foreign_calls(len(trace) + (failure is not None), prediction, wall_s)
        if failure:
            return Answer(None, str(failure.lm_response), usage, error=_first_line(failure))
        return Answer(prediction, calls[-1].text if calls else "", usage, steps)

    def record(self, row: DataRow, answer: Answer) -> ExampleRecord:
        """Score one answer.

        Raises:
            DataError: the metric cannot use the row, or failed.
        """
        cost = vars(answer.usage)
        if answer.prediction is None:
            return ExampleRecord(
                example_id=row.id,
                outcome=Outcome.PARSE_FAILED,
                score=0.0,
                completion=answer.completion,
                error=answer.error,
                **cost,
            )
        score = self._score(row, answer.prediction)
        return ExampleRecord(
            example_id=row.id,
            outcome=Outcome.UNSCORED if score.value is None else Outcome.SCORED,
            score=score.value,
            feedback=score.feedback,
            details=dict(score.details),
            prediction=plain_fields(answer.prediction),
            completion=answer.completion,
            error=score.feedback if score.value is None else "",
            **cost,
        )

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


def evaluate_rows(
    evaluator: Evaluator,
    rows: Sequence[DataRow],
    store: Path | None = None,
    on_record: Callable[[ExampleRecord], None] | None = None,
    *,
    parallel: int | None = None,
) -> list[ExampleRecord]:
    """Return one record per row, in the order of `rows`.

    Args:
        store: JSONL file of records; those it already holds are not computed again, new ones are appended at once.
        on_record: called after every row, whether computed or read.
        parallel: rows that run at once; None = as many as the LM answers at once.
    """
    return list(iterate_rows(evaluator, rows, store, on_record, parallel=parallel, stops=()))


def iterate_rows(
    evaluator: Evaluator,
    rows: Sequence[DataRow],
    store: Path | None = None,
    on_record: Callable[[ExampleRecord], None] | None = None,
    *,
    parallel: int | None = None,
    stops: Sequence[int] | None = None,
    throughput: Throughput | None = None,
) -> Generator[ExampleRecord]:
    """Yield what `evaluate_rows` returns, record by record, so that a race can stop in between.

    Whoever stops closes the generator (`contextlib.closing`): no further row is begun then, and what still runs is
    neither waited for nor stored.

    Args:
        stops: ascending counts of records after which the caller may stop; None = after any, empty = never. Between
            them more rows may run ahead; beyond the one where it stops, at most `parallel` were begun in vain.
        throughput: told of every record that was computed, not of those that were read.
    """
    known = {record.example_id: record for record in read_jsonl(store, ExampleRecord)} if store else {}
    with closing(iterate_answers(evaluator, rows, known, parallel=parallel, stops=stops)) as answers:
        for row, answer in answers:
            if answer is None:
                record = known[row.id]
            else:
                record = evaluator.record(row, answer)
                if store:
                    append_jsonl(store, record)
                if throughput:
                    throughput.add(record)
            if on_record:
                on_record(record)
            yield record


def iterate_answers(
    evaluator: Evaluator,
    rows: Sequence[DataRow],
    known: Container[str],
    *,
    parallel: int | None = None,
    stops: Sequence[int] | None = None,
) -> Generator[tuple[DataRow, Answer | None]]:
    """Yield every row in order with its answer, None where its id is in `known`; otherwise as `iterate_rows`."""
    asked = [position for position, row in enumerate(rows) if row.id not in known]
    parallel = evaluator.parallel if parallel is None else parallel
    # Counts of rows become counts of answers: rows that are known are not begun.
    begun_at = None if stops is None else [bisect_left(asked, stop) for stop in stops]
    with closing(in_order(evaluator.answer, [rows[position] for position in asked], parallel, begun_at)) as answers:
        for row in rows:
            yield row, None if row.id in known else next(answers)


def own_error(error: BaseException) -> BaseException:
    """Return the promptopt error that DSPy wrapped on its way out of our engine, or `error` itself."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, PromptoptError):
            return cause
        cause = cause.__cause__ or cause.__context__
    return error


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
