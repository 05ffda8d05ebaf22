"""Instructions that a language model writes after reading what went wrong.

The method is GEPA's reflective mutation (Agrawal et al. 2025, arXiv 2507.19457): the writer sees the instruction in
use, and for a few failed examples what went in, what came out, what was expected and the metric's feedback. Which
candidate is worth reflecting on, and on which rows, is the caller's: give it training rows, for what the writer has
read is no fair test any more.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import dspy

from promptopt.candidate import Candidate
from promptopt.errors import ConfigError
from promptopt.pools.instruction_text import Answers
from promptopt.pools.instructions import Asking, Attempt, ask_for_instructions
from promptopt.pools.pool import Proposal
from promptopt.pools.task_text import answers_of, example_text, program_inputs, shortened, task_of
from promptopt.records import DataRow, ExampleRecord, Outcome

SHOWN = 3
"""Failures in a prompt, each time other ones (GEPA's minibatch)."""

_PROMPT = """\
You improve the instruction of a language model. The instruction stands above every input of one task, so it has to \
fit all inputs, not only those you see here.

# The task
{task}

# The instruction in use
{own}

# Where it failed
{failures}
# What you are to do
First say in a few lines what these failures have in common, and what the instruction would have to say to avoid them. \
Then write the improved instruction:
- Keep what is good about the one in use; add facts about the task that the failures show.
- Write in the language of the one in use.
- Do not repeat an example and do not give an answer away.
- Do not ask for JSON, tags, headings or other delimiters: the program adds its own.
Put the improved instruction, and nothing else, between two lines of three backticks (```)."""


@dataclass(frozen=True)
class Failure:
    """A row, and the record that says how a candidate failed on it."""

    row: DataRow
    record: ExampleRecord


def failures_of(rows: Sequence[DataRow], records: Sequence[ExampleRecord], below: float = 1.0) -> tuple[Failure, ...]:
    """Return what scored less than `below`, the worst first; UNSCORED examples are nobody's failure.

    Records of other rows are passed over.
    """
    by_id = {row.id: row for row in rows}
    failed = [
        Failure(by_id[record.example_id], record)
        for record in records
        if record.example_id in by_id and record.score is not None and record.score < below
    ]
    return tuple(sorted(failed, key=lambda failure: (failure.record.score, failure.row.id)))


def reflect_on_failures(
    lm: dspy.BaseLM,
    program: dspy.Module,
    candidate: Candidate,
    predictor: str,
    rows: Sequence[DataRow],
    records: Sequence[ExampleRecord],
    n: int,
    seed: int,
    *,
    below: float = 1.0,
    known: Sequence[str] = (),
    max_tokens: int = 1024,
    on_refused: Callable[[str, str], None] | None = None,
) -> tuple[Proposal, ...]:
    """Return up to `n` new instructions for one predictor of `candidate`; the same for the same arguments and LM.

    Without failures none. An LM that cannot do it leaves fewer, or none.

    Args:
        lm: the writer.
        predictor: whose instruction is to be improved; of an inner one only the program's own fields are known.
        rows: those of the records, and whatever else shows which answers are common.
        records: what `candidate` made of the rows.
        below: what scores less is a failure.
        known: instructions beside the candidate's that are not to be proposed again (the pool's).
        max_tokens: longest reply; it holds thoughts before the instruction.
        on_refused: told of every reply that was no new instruction: the text, and why.

    Raises:
        ConfigError: the candidate has no such predictor.
        LMError: the LM is broken.
    """
    if predictor not in candidate.predictors:
        raise ConfigError(f"The candidate has no predictor {predictor!r}; it has {sorted(candidate.predictors)}.")
    failures = failures_of(rows, records, below)
    if not failures:
        return ()
    own = candidate.predictors[predictor].instructions
    task, inputs = task_of(program, predictor), program_inputs(program)

    def attempt(number: int) -> Attempt:
        shown = _minibatch(failures, number, f"{seed}:{predictor}")

        def prompt(count: int) -> str:
            texts = [_failure_text(failure, inputs, i) for i, failure in enumerate(shown[:count], start=1)]
            return _PROMPT.format(task=task, own=own, failures="\n".join(texts))

        return Attempt(prompt, len(shown), 1, f"reflected on {', '.join(failure.row.id for failure in shown)}")

    asking = Asking(
        lm,
        f"{seed}:{predictor}:reflection",
        max_tokens,
        (own, *known),
        Answers(answers_of(rows, program)),
        marked=True,
        on_refused=on_refused,
    )
    return ask_for_instructions(asking, attempt, n)


def _minibatch(failures: Sequence[Failure], number: int, seed: str) -> list[Failure]:
    """Return the failures that attempt `number` shows: none comes a second time before all have come."""
    size = min(SHOWN, len(failures))
    rounds, place = divmod(number * size, len(failures))
    order = [*_shuffled(failures, f"{seed}:{rounds}"), *_shuffled(failures, f"{seed}:{rounds + 1}")]
    return order[place : place + size]


def _shuffled(failures: Sequence[Failure], seed: str) -> list[Failure]:
    return random.Random(seed).sample(failures, len(failures))


def _failure_text(failure: Failure, inputs: set[str], number: int) -> str:
    row, record = failure.row, failure.record
    given = {name: value for name, value in row.fields.items() if name in inputs}
    expected = {name: value for name, value in row.fields.items() if name not in inputs}
    if record.outcome is Outcome.PARSE_FAILED:
        came = f"{shortened(record.completion)}\n(This could not be read: {shortened(record.error)})"
    else:
        came = example_text(record.prediction)
    parts = [f"## Failure {number}\nGiven:\n{example_text(given)}", f"The model answered:\n{came}"]
    if expected:
        parts.append(f"Expected:\n{example_text(expected)}")
    parts.append(f"Score: {record.score:g} of 1. {shortened(record.feedback)}".strip())
    return "\n".join(parts) + "\n"
