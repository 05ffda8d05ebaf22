"""One row through one program: what came back and what it cost. Scores nothing."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import dspy
from pydantic import JsonValue

from promptopt.lm.protocol import Completion


@dataclass(frozen=True)
class TraceStep:
    """One predictor call inside a program: which predictor, what went in, what came out."""

    predictor: str
    inputs: dict[str, JsonValue]
    outputs: dict[str, JsonValue]


@dataclass(frozen=True)
class Usage:
    """What the LM calls of one answer cost. Fields as in `ExampleRecord`."""

    calls: int
    cached_calls: int
    prompt_tokens: int
    prompt_tokens_computed: int
    completion_tokens: int
    completion_tokens_computed: int
    latency_s: float


@dataclass(frozen=True)
class Answer:
    """What a program made of one row.

    Attributes:
        prediction: None where the completion did not parse; `error` says why.
        completion: raw text of the last LM call.
        trace: every predictor call that led to it; empty where parsing failed.
    """

    prediction: dspy.Prediction | None
    completion: str
    usage: Usage
    trace: tuple[TraceStep, ...] = ()
    error: str = ""


@dataclass(frozen=True)
class ProgramCopy:
    """One copy of a program; it runs one row at a time."""

    program: dspy.Module
    names: dict[int, str]

    def steps(self, trace: Sequence[tuple[dspy.Module, dict[str, object], dspy.Prediction]]) -> tuple[TraceStep, ...]:
        """Return DSPy's trace as plain values; predictors that the program made while it ran are left out."""
        return tuple(
            TraceStep(
                self.names[id(predictor)],
                {key: plain_value(value) for key, value in inputs.items()},
                plain_fields(prediction),
            )
            for predictor, inputs, prediction in trace
            if id(predictor) in self.names
        )


class ProgramCopies:
    """Lends copies of a program, one to each row that runs at the same time; made when they are first needed.

    Threads could share one copy, as dspy.Evaluate's do, if no program ever wrote to `self` in its forward. Some do (the
    passages found so far, the last question), and would mix up rows without a word. A copy takes a fraction of a
    millisecond; what cannot be copied deeply is shared, as `dspy.Module.deepcopy` does it.
    """

    def __init__(self, program: dspy.Module) -> None:
        # Never run itself: a copy must not be taken of what another thread is changing.
        self._original = program
        self._idle: list[ProgramCopy] = []
        self._lock = threading.Lock()

    @contextmanager
    def lent(self) -> Iterator[ProgramCopy]:
        """Yield a copy that nobody else runs."""
        with self._lock:
            copy = self._idle.pop() if self._idle else self._make()
        try:
            yield copy
        finally:
            with self._lock:
                self._idle.append(copy)

    def _make(self) -> ProgramCopy:
        program = self._original.deepcopy()
        return ProgramCopy(program, {id(predictor): name for name, predictor in program.named_predictors()})


def usage_of_calls(calls: Sequence[Completion]) -> Usage:
    """Return what calls of promptopt's own LMs cost."""
    return Usage(
        calls=len(calls),
        cached_calls=sum(call.cached for call in calls),
        prompt_tokens=sum(call.prompt_tokens for call in calls),
        prompt_tokens_computed=sum(call.prompt_tokens_computed for call in calls),
        completion_tokens=sum(call.completion_tokens for call in calls),
        completion_tokens_computed=sum(call.completion_tokens for call in calls if not call.cached),
        latency_s=sum(call.latency_s for call in calls),
    )


def usage_of_foreign_calls(calls: int, prediction: dspy.Prediction | None, wall_s: float) -> Usage:
    """Return what calls of other LMs cost: only what their provider says, through DSPy's usage tracker."""
    usage = (prediction.get_lm_usage() or {}) if prediction is not None else {}
    prompt = sum(int(entry.get("prompt_tokens") or 0) for entry in usage.values())
    answer = sum(int(entry.get("completion_tokens") or 0) for entry in usage.values())
    return Usage(calls, 0, prompt, prompt, answer, answer, wall_s)


def plain_fields(prediction: dspy.Prediction) -> dict[str, JsonValue]:
    """Return the fields of a prediction as JSON values."""
    return {str(name): plain_value(value) for name, value in prediction.items()}


def plain_value(value: object) -> JsonValue:
    """Return `value` as JSON; what JSON cannot hold becomes text."""
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, list | tuple):
        return [plain_value(item) for item in value]
    if isinstance(value, dict):
        return {str(key): plain_value(item) for key, item in value.items()}
    dump = getattr(value, "model_dump", None)
    return dump(mode="json") if dump else str(value)
