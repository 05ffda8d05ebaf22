"""DSPy's optimizers as DSPy recommends them, watched through DSPy's own callbacks.

Every evaluation on all validation rows is a point of the curve; one on a minibatch is not, because its mean is of other
rows. Failing rows never end a search (`max_errors` is out of reach): small models fail often, and DSPy's default would
stop BootstrapFewShotWithRandomSearch at the tenth row that cannot be read.
"""

import contextlib
import io
import logging
import statistics
from collections.abc import Iterator, Sequence
from typing import Any
from unittest import mock

import dspy
from dspy.propose import GroundedProposer
from dspy.teleprompt import BootstrapFewShotWithRandomSearch, MIPROv2, mipro_optimizer_v2
from dspy.utils.callback import BaseCallback
from dspy.utils.exceptions import AdapterParseError, ContextWindowExceededError
from search_bench.fit import demos_that_fit, examples_in_view
from search_bench.outcome import Found, Outcome, Run
from search_bench.programs import saved_dspy_program
from search_bench.records import SavedProgram
from search_bench.tasks import examples

NO_LIMIT = 10**9
MIPRO_SEED = 1000
"""Added to the seed: MIPROv2 takes seed 0 for none."""
DSPY_DEMOS = {"mipro": (4, 4), "bootstrap": (4, 16)}
"""DSPy's defaults of max_bootstrapped_demos and max_labeled_demos."""
VIEWED_ROWS = 10
LONGEST_PROPOSAL = 512


class EvaluationLog(BaseCallback):
    """Collects every evaluation on all of `n_rows` rows, with what had been spent when it ended."""

    def __init__(self, run: Run, n_rows: int) -> None:
        self._run = run
        self._n_rows = n_rows
        self._open: dict[str, tuple[SavedProgram, int]] = {}
        self.found: list[Found] = []
        self.partial = 0
        self.problems: list[Exception] = []

    def on_evaluate_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        """Keep the program as it is now: optimizers go on with the same object."""
        with self._problems_kept():
            rows = inputs.get("devset") or instance.devset
            self._open[call_id] = saved_dspy_program(inputs["program"]), len(rows)

    def on_evaluate_end(self, call_id: str, outputs: Any | None, exception: BaseException | None = None) -> None:
        """Note the mean score; an evaluation that broke is a problem."""
        spent = self._run.meter.spent()
        with self._problems_kept():
            program, rows = self._open.pop(call_id)
            if outputs is None:
                raise RuntimeError(f"an evaluation of DSPy's broke: {exception!r}")
            if rows < self._n_rows:
                self.partial += 1
                return
            self.found.append(Found(spent, statistics.fmean(float(score) for *_, score in outputs.results), program))

    @contextlib.contextmanager
    def _problems_kept(self) -> Iterator[None]:
        # DSPy turns an exception of a callback into a warning.
        try:
            yield
        except Exception as error:
            self.problems.append(error)


class PatientProposer(GroundedProposer):
    """Keeps the program's own instructions where a proposal cannot be read; MIPROv2 itself would end there."""

    asked = 0
    unread = 0

    def propose_instruction_for_predictor(self, program: dspy.Module, predictor: Any, *args: Any, **kwargs: Any) -> str:
        """Return a proposal."""
        type(self).asked += 1
        try:
            proposed = super().propose_instruction_for_predictor(program, predictor, *args, **kwargs)
        except (AdapterParseError, ContextWindowExceededError, TypeError):
            proposed = None
        if not isinstance(proposed, str) or not proposed.strip():
            type(self).unread += 1
            return str(predictor.signature.instructions)
        return proposed


def mipro(run: Run) -> Outcome:
    """MIPROv2 in one of its `auto` modes; its proposer is the same model, with longer answers."""
    train = examples(run.task, run.train)
    answer_tokens = min(LONGEST_PROPOSAL, run.lm.n_ctx // 8)
    view = examples_in_view(run.task, run.lm, train, answer_tokens, VIEWED_ROWS)
    bootstrapped, labelled = _demos(run, "mipro")

    class Proposer(PatientProposer):
        """Counts for this run alone."""

    optimizer = MIPROv2(
        metric=run.task.metric, task_model=run.lm, prompt_model=run.lm.copy(max_tokens=answer_tokens),
        max_bootstrapped_demos=bootstrapped, max_labeled_demos=labelled, auto=run.options.mipro,
        num_threads=run.lm.parallel, max_errors=NO_LIMIT, seed=MIPRO_SEED + run.seed,
        metric_threshold=run.options.metric_threshold,
    )  # fmt: skip
    log = EvaluationLog(run, len(run.val))
    with watched(run, log), mock.patch.object(mipro_optimizer_v2, "GroundedProposer", Proposer):
        optimizer.compile(
            run.task.program(), trainset=train, valset=examples(run.task, run.val), view_data_batch_size=view
        )
    notes = {
        "max_bootstrapped_demos": bootstrapped, "max_labeled_demos": labelled, "view_data_batch_size": view,
        "proposer_max_tokens": answer_tokens, "minibatch_evaluations": log.partial,
        "proposals": Proposer.asked, "proposals_unread": Proposer.unread,
    }  # fmt: skip
    return Outcome(_checked(log), notes)


def bootstrap(run: Run) -> Outcome:
    """BootstrapFewShotWithRandomSearch; it has no seed of its own, so seeds differ by their rows."""
    bootstrapped, labelled = _demos(run, "bootstrap")
    log = EvaluationLog(run, len(run.val))
    with watched(run, log):
        optimizer = BootstrapFewShotWithRandomSearch(
            metric=run.task.metric, max_bootstrapped_demos=bootstrapped, max_labeled_demos=labelled,
            num_candidate_programs=run.options.bootstrap_candidates, num_threads=run.lm.parallel, max_errors=NO_LIMIT,
            metric_threshold=run.options.metric_threshold,
        )  # fmt: skip
        optimizer.compile(
            run.task.program(), trainset=examples(run.task, run.train), valset=examples(run.task, run.val)
        )
    return Outcome(_checked(log), {"max_bootstrapped_demos": bootstrapped, "max_labeled_demos": labelled})


@contextlib.contextmanager
def watched(run: Run, log: EvaluationLog) -> Iterator[None]:
    """Run DSPy with the LM and the log, and without its output."""
    logger = logging.getLogger("dspy")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    silence = io.StringIO()
    try:
        with (
            contextlib.redirect_stdout(silence),
            contextlib.redirect_stderr(silence),
            dspy.context(lm=run.lm, callbacks=[log]),
        ):
            yield
    finally:
        logger.setLevel(level)


def _demos(run: Run, method: str) -> tuple[int, int]:
    bootstrapped, labelled = DSPY_DEMOS[method]
    fitting = demos_that_fit(run.task, run.lm, run.train, max(bootstrapped, labelled))
    return min(bootstrapped, fitting), min(labelled, fitting)


def _checked(log: EvaluationLog) -> Sequence[Found]:
    if log.problems:
        raise log.problems[0]
    if not log.found:
        raise RuntimeError("DSPy's optimizer evaluated nothing on all validation rows.")
    return log.found
