"""Programs that were found: saved, built again, and scored on rows the way they would be deployed."""

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import dspy
from dspy.utils.exceptions import AdapterParseError
from search_bench.records import SavedProgram
from search_bench.tasks import Task

from promptopt.candidate import Candidate
from promptopt.errors import ContextLengthError
from promptopt.layout.spec import Layout
from promptopt.lm.llama_cpp.facade import LlamaCpp
from promptopt.records import DataRow


@dataclass(frozen=True)
class RowScores:
    """Scores by row id; rows that could not be read or did not fit score 0."""

    scores: dict[str, float]
    unparsed: int
    too_long: int
    seconds: float

    @property
    def mean(self) -> float:
        """Return the mean score."""
        return sum(self.scores.values()) / len(self.scores)


def saved_dspy_program(program: dspy.Module) -> SavedProgram:
    """Return a program of DSPy's as it can be kept."""
    return SavedProgram(candidate=Candidate.of_program(program, Layout()), laid_out=False)


def build(saved: SavedProgram, task: Task) -> dspy.Module:
    """Return the program that was saved."""
    program = task.program()
    if saved.laid_out:
        return saved.candidate.apply(program)
    for name, predictor in program.named_predictors():
        prompt = saved.candidate.predictors[name]
        predictor.signature = predictor.signature.with_instructions(prompt.instructions)
        predictor.demos = [dspy.Example(**demo) for demo in prompt.demos]
    return program


def score_rows(program: dspy.Module, task: Task, lm: LlamaCpp, rows: Sequence[DataRow]) -> RowScores:
    """Run a program on rows, as many at once as the LM answers at once; a broken system raises."""
    lock = threading.Lock()
    failed = {"unparsed": 0, "too_long": 0}

    def fail(reason: str) -> float:
        with lock:
            failed[reason] += 1
        return 0.0

    def score(row: DataRow) -> float:
        try:
            with dspy.context(lm=lm):
                prediction = program(**{name: row.fields[name] for name in task.inputs})
        except AdapterParseError:
            return fail("unparsed")
        except Exception as error:
            if _too_long(error):
                return fail("too_long")
            raise
        return task.metric(row.fields, prediction)

    started = time.perf_counter()
    with ThreadPoolExecutor(lm.parallel) as threads:
        values = list(threads.map(score, rows))
    seconds = time.perf_counter() - started
    return RowScores({row.id: value for row, value in zip(rows, values, strict=True)}, **failed, seconds=seconds)


def _too_long(error: BaseException) -> bool:
    """Whether DSPy wrapped a prompt's not fitting on its way out of our engine."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ContextLengthError):
        cause = cause.__cause__ or cause.__context__
    return cause is not None
