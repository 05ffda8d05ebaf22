"""The evaluator: the same records however many rows run at once, kept in order, and rows that stay apart."""

import random
import re
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import dspy
import pytest
from dspy.lm15 import Message, Request, Response, Usage
from hypothesis import given, settings
from hypothesis import strategies as st

from promptopt.candidate import Candidate
from promptopt.errors import ContextLengthError, DataError, LMError
from promptopt.evaluation.evaluate import Evaluator, evaluate_rows, iterate_answers, iterate_rows
from promptopt.evaluation.throughput import Throughput
from promptopt.layout.spec import Layout
from promptopt.lm.scripted import ScriptedLM
from promptopt.metrics.base import Fields, Metric, Score
from promptopt.metrics.registry import get_metric
from promptopt.records import DataRow, ExampleRecord, Outcome
from promptopt.rundir import append_jsonl, read_jsonl

INPUTS = ("document", "question")
PROGRAM = dspy.Predict("document, question -> answer")
METRIC = get_metric("answer_f1")
ROWS = [
    DataRow(
        id=f"{n:016x}",
        fields={"document": "word " * (n % 7 + 1), "question": f"What is item{n}?", "answer": str(n)},
    )
    for n in range(24)
]
Messages = list[dict[str, str]]


def number_of(messages: Messages) -> int:
    return int(re.findall(r"item(\d+)\?", messages[-1]["content"])[-1])


def answer(messages: Messages) -> str:
    """Right, wrong, or without the marker that parsing needs, by the row's number."""
    number = number_of(messages)
    if number % 5 == 4:
        return f"no marker {number}"
    return f"[[ ## answer ## ]]\n{number if number % 3 else 'something'}\n\n[[ ## completed ## ]]"


def shuffled(seed: int) -> Callable[[Messages], str]:
    """The same answers, each after up to 2 ms, so that rows finish in another order than they began."""
    delays = random.Random(seed).choices(range(5), k=len(ROWS))

    def late(messages: Messages) -> str:
        time.sleep(delays[number_of(messages)] * 0.0005)
        return answer(messages)

    return late


def evaluator_of(lm: dspy.BaseLM, program: dspy.Module = PROGRAM, metric: Metric = METRIC) -> Evaluator:
    return Evaluator(program, Candidate.of_program(program, Layout()), lm, metric, INPUTS)


def timeless(records: list[ExampleRecord]) -> list[ExampleRecord]:
    return [record.model_copy(update={"latency_s": 0.0}) for record in records]


SEQUENTIAL = timeless(evaluate_rows(evaluator_of(ScriptedLM(answer)), ROWS))


@given(st.integers(0, 2**32), st.integers(1, 8), st.sets(st.integers(0, 23)), st.lists(st.integers(0, 30), max_size=3))
@settings(max_examples=20)
def test_records_and_their_order_do_not_depend_on_parallel_timing_or_what_was_stored(
    tmp_path_factory: pytest.TempPathFactory, seed: int, parallel: int, stored: set[int], stops: list[int]
) -> None:
    store = tmp_path_factory.mktemp("store") / "records.jsonl"
    for position in sorted(stored):
        append_jsonl(store, SEQUENTIAL[position])
    lm = ScriptedLM(shuffled(seed), parallel=parallel)
    reported: list[ExampleRecord] = []
    records = list(iterate_rows(evaluator_of(lm), ROWS, store, reported.append, stops=sorted(stops)))
    assert timeless(records) == SEQUENTIAL
    assert reported == records
    new = [record for position, record in enumerate(records) if position not in stored]
    assert read_jsonl(store, ExampleRecord)[len(stored) :] == new
    assert len(lm.requests) == len(new)


def test_parallel_comes_from_the_lm_and_can_be_overridden() -> None:
    together = threading.Barrier(4)

    def meet(messages: Messages) -> str:
        together.wait(5)
        return answer(messages)

    lm = ScriptedLM(meet, parallel=4)
    assert evaluator_of(lm).parallel == 4
    assert timeless(evaluate_rows(evaluator_of(lm), ROWS)) == SEQUENTIAL
    assert timeless(evaluate_rows(evaluator_of(ScriptedLM(meet)), ROWS, parallel=4)) == SEQUENTIAL
    assert evaluator_of(ScriptedLM(answer)).parallel == 1
    assert evaluator_of(dspy.LM("openai/some-server")).parallel == 1
    threads: set[str] = set()

    def note(messages: Messages) -> str:
        threads.add(threading.current_thread().name)
        return answer(messages)

    evaluate_rows(evaluator_of(ScriptedLM(note, parallel=4)), ROWS, parallel=1)
    assert threads == {threading.current_thread().name}


@pytest.mark.parametrize("stops", [None, (7, 20)])
def test_a_stop_keeps_the_records_before_it_and_no_other(tmp_path: Path, stops: tuple[int, ...] | None) -> None:
    store = tmp_path / "records.jsonl"
    lm = ScriptedLM(shuffled(1), parallel=4)
    records = []
    with closing(iterate_rows(evaluator_of(lm), ROWS, store, stops=stops)) as running:
        for record in running:
            records.append(record)
            if len(records) == 7:
                break
    before = store.read_bytes()
    time.sleep(0.05)
    assert store.read_bytes() == before
    assert read_jsonl(store, ExampleRecord) == records
    assert timeless(records) == SEQUENTIAL[:7]
    assert 7 <= len(lm.requests) <= 7 + 4


def test_a_consumer_that_raises_leaves_the_records_before_it(tmp_path: Path) -> None:
    store = tmp_path / "records.jsonl"

    def interrupt(record: ExampleRecord) -> None:
        if record.example_id == ROWS[5].id:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate_rows(evaluator_of(ScriptedLM(shuffled(2), parallel=4)), ROWS, store, interrupt)
    time.sleep(0.02)
    assert timeless(read_jsonl(store, ExampleRecord)) == SEQUENTIAL[:6]


def test_a_broken_system_raises_in_its_turn_and_keeps_what_was_finished(tmp_path: Path) -> None:
    store = tmp_path / "records.jsonl"

    def breaking(messages: Messages) -> str:
        if number_of(messages) >= 9:
            raise LMError(f"dead at {number_of(messages)}")
        time.sleep(0.002)
        return answer(messages)

    # Row 9 and those after it break at once, long before row 8 has its answer.
    with pytest.raises(LMError, match="dead at 9"):
        evaluate_rows(evaluator_of(ScriptedLM(breaking, parallel=6)), ROWS, store)
    assert timeless(read_jsonl(store, ExampleRecord)) == SEQUENTIAL[:9]
    resumed = ScriptedLM(answer, parallel=6)
    assert timeless(evaluate_rows(evaluator_of(resumed), ROWS, store)) == SEQUENTIAL
    assert len(resumed.requests) == len(ROWS) - 9


def test_a_prompt_that_does_not_fit_is_a_system_error() -> None:
    with pytest.raises(ContextLengthError):
        evaluate_rows(evaluator_of(ScriptedLM(answer, n_ctx=5, parallel=3)), ROWS)


class _Metric(Metric):
    """Notes who asked for what; the last row's gold is unusable."""

    name = "noting"

    def __init__(self) -> None:
        self.scored: list[tuple[str, str]] = []

    def score(self, example: Fields, prediction: Fields) -> Score:
        self.scored.append((threading.current_thread().name, str(example.get("question"))))
        if len(self.scored) == 3:
            raise ZeroDivisionError("the user's bug")
        return Score(1.0)


def test_metrics_are_called_in_order_by_the_consumers_thread() -> None:
    metric = _Metric()
    rows = [row for position, row in enumerate(ROWS) if position % 5 != 4]
    with pytest.raises(DataError, match=f"failed on row {rows[2].id}: ZeroDivisionError"):
        evaluate_rows(evaluator_of(ScriptedLM(shuffled(3), parallel=4), metric=metric), rows)
    here = threading.current_thread().name
    assert metric.scored == [(here, str(row.fields["question"])) for row in rows[:3]]


class _TwoSteps(dspy.Module):
    """Keeps its question on itself while it waits for the first answer, as programs do that were written for one."""

    def __init__(self) -> None:
        self.first = dspy.Predict("document, question -> summary")
        self.second = dspy.Predict("summary, question -> answer")

    def forward(self, document: str, question: str) -> dspy.Prediction:
        self.question = question
        summary = self.first(document=document, question=question).summary
        return self.second(summary=summary, question=self.question)


def test_rows_that_run_together_see_only_their_own_calls_trace_and_state() -> None:
    together = threading.Barrier(4)

    def meet(messages: Messages) -> str:
        together.wait(5)
        field = "summary" if "`summary` (str)" in messages[0]["content"].split("output fields")[1] else "answer"
        return f"[[ ## {field} ## ]]\n{field} {number_of(messages)}\n\n[[ ## completed ## ]]"

    lm = ScriptedLM(meet, parallel=4)
    evaluator = evaluator_of(lm, _TwoSteps())
    for number, (row, answered) in enumerate(iterate_answers(evaluator, ROWS, ())):
        assert answered is not None
        assert answered.prediction is not None
        assert answered.prediction.answer == f"answer {number}"
        assert [step.predictor for step in answered.trace] == ["first", "second"]
        assert answered.trace[0].inputs == {name: row.fields[name] for name in INPUTS}
        assert answered.trace[1].inputs == {"summary": f"summary {number}", "question": row.fields["question"]}
        own = [request for request in lm.requests if number_of(list(request.messages)) == number]
        words = [sum(len(message["content"].split()) for message in request.messages) for request in own]
        assert answered.usage.calls == len(own) == 2
        assert answered.usage.prompt_tokens == sum(words)


def test_a_context_around_the_consumer_holds_in_every_row() -> None:
    seen: list[object] = []

    class Looks(dspy.Module):
        def __init__(self) -> None:
            self.predict = dspy.Predict("document, question -> answer")

        def forward(self, **inputs: str) -> dspy.Prediction:
            seen.append(dspy.settings.max_trace_size)
            return self.predict(**inputs)

    with dspy.context(max_trace_size=77, trace=[]):
        evaluate_rows(evaluator_of(ScriptedLM(answer, parallel=3), Looks()), ROWS)
        assert dspy.settings.trace == []
    assert seen == [77] * len(ROWS)


def test_throughput_hears_of_computed_records_only(tmp_path: Path) -> None:
    store = tmp_path / "records.jsonl"
    evaluate_rows(evaluator_of(ScriptedLM(answer)), ROWS[:20], store)
    throughput = Throughput()
    list(iterate_rows(evaluator_of(ScriptedLM(answer, parallel=2)), ROWS, store, throughput=throughput))
    assert throughput.records == 4


def test_calls_of_a_foreign_lm_are_counted_by_the_trace() -> None:
    class Engine:
        def complete(self, request: Request) -> Response:
            text = answer([{"content": str(request.messages[-1].text)}])
            usage = Usage(input_tokens=7, output_tokens=2)
            return Response(id=None, model="m", message=Message.assistant(text), finish_reason="stop", usage=usage)

    lm = dspy.LM("openai/m", engine=Engine(), num_retries=0, cache=False)
    records = evaluate_rows(evaluator_of(lm), ROWS[3:5], parallel=2)
    assert [record.outcome for record in records] == [Outcome.SCORED, Outcome.PARSE_FAILED]
    assert [(record.calls, record.cached_calls) for record in records] == [(1, 0), (1, 0)]
    assert (records[0].prompt_tokens, records[0].completion_tokens_computed) == (7, 2)


def test_records_of_older_files_still_load() -> None:
    old = '{"example_id":"a","outcome":"scored","score":1.0,"prompt_tokens":3,"completion_tokens":2,"latency_s":0.1}'
    record = ExampleRecord.model_validate_json(old)
    assert (record.calls, record.cached_calls, record.completion_tokens_computed) == (0, 0, 0)
