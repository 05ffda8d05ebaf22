"""How many demos and data rows DSPy's optimizers may put into a prompt before it outgrows a small model's context.

DSPy does not look: a program whose prompt is too long scores 0, one row after the other. With their default of up to
16 demos its optimizers would then spend their trials on such programs, which says nothing about how well they search.
"""

import statistics
from collections.abc import Sequence

from search_bench.tasks import Task, prompt_tokens

from promptopt.lm.llama_cpp.facade import LlamaCpp
from promptopt.records import DataRow

MEASURED_ROWS = 24
LARGER = 1.2
"""Some demos are longer than the mean."""
PROPOSER_SCAFFOLD = 300
"""Tokens of the proposer's own instructions."""


def demos_that_fit(task: Task, lm: LlamaCpp, train: Sequence[DataRow], most: int) -> int:
    """Return how many demos of usual length fit beside a long input, from 1 to `most`."""
    sample = train[:MEASURED_ROWS]
    plain = [prompt_tokens(task, row, lm) for row in sample]
    first = sample[0]
    demos = [prompt_tokens(task, first, lm, [demo]) - plain[0] for demo in sample]
    room = lm.n_ctx - task.max_tokens - max(plain)
    return max(1, min(most, int(room / (LARGER * statistics.fmean(demos)))))


def examples_in_view(task: Task, lm: LlamaCpp, shown: Sequence[object], answer_tokens: int, most: int) -> int:
    """Return how many rows the proposer can be shown at a time, from 1 to `most`.

    The observations it has made so far stand in the same prompt; two answers' worth of room is kept for them.
    """
    tokens = [len(lm.tokenize_text(repr(example), special=False)) for example in shown[:MEASURED_ROWS]]
    room = lm.n_ctx - PROPOSER_SCAFFOLD - 3 * answer_tokens
    return max(1, min(most, int(room / (LARGER * statistics.fmean(tokens)))))
