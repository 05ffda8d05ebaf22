"""What is kept of a measurement: one line per cell (task, method, seed), one per program that was tested."""

from pydantic import JsonValue

from promptopt.candidate import Candidate
from promptopt.records import Record


class Spent(Record):
    """What an optimizer had cost up to some moment.

    Attributes:
        calls: requests that reached the model.
        prompt_tokens_computed: prompt tokens that no prompt in the engine's memory covered.
        remembered_calls, remembered_tokens: requests that were asked before in the same cell, answered from memory, and
            the prompt and completion tokens they would have cost.
        seconds: wall time since the optimizer was called; cpu_seconds: processor time of this process, all threads.
    """

    calls: int
    prompt_tokens: int
    prompt_tokens_computed: int
    completion_tokens: int
    remembered_calls: int
    remembered_tokens: int
    seconds: float
    cpu_seconds: float = 0.0


class SavedProgram(Record):
    """A program that can be built again.

    Attributes:
        candidate: instructions and demos of its predictors, and a layout.
        laid_out: whether the layout is used; otherwise DSPy's own ChatAdapter runs the program, with its second
            attempt through JSONAdapter.
    """

    candidate: Candidate
    laid_out: bool

    def key(self) -> str:
        """Return what names the program: equal programs, equal keys."""
        return ("layout-" if self.laid_out else "dspy-") + self.candidate.key()[:16]


class Point(Record):
    """One program that was scored on all validation rows."""

    spent: Spent
    score: float
    program: str


class Setup(Record):
    """What all cells that are compared have in common: model, sizes, and how the engine was started.

    Attributes:
        rows: train, val and test, at most.
        threads: None = the engine chose. Seconds with other threads, or another `parallel`, are not comparable.
    """

    model: str
    model_sha256: str
    n_ctx: int
    rows: tuple[int, int, int]
    threads: int | None = None
    parallel: int | None = None
    n_gpu_layers: int = 0
    batch_invariant: bool = False


class Cell(Record):
    """One method on one task with one seed.

    Attributes:
        settings: what the method was asked for; with setup, task, method and seed, the cell's identity.
        metric: name of the metric; metric_remark: what a reader has to know of it.
        curve: in order of time; partly scored programs are not in it.
        spent: when the optimizer returned.
        programs: those that were the best so far when they were scored.
        notes: what the method did with its settings here.
        code: hash of promptopt's own search, so that results of two versions are not taken for one.
    """

    setup: Setup
    task: str
    method: str
    seed: int
    settings: dict[str, JsonValue]
    metric: str
    metric_remark: str
    curve: tuple[Point, ...]
    spent: Spent
    programs: dict[str, SavedProgram]
    notes: dict[str, JsonValue]
    code: str
    host: dict[str, JsonValue]


class TestScores(Record):
    """One program on the test rows of a task.

    Attributes:
        scores: row id -> score.
        unparsed, too_long: rows whose answer could not be read, and whose prompt did not fit; both score 0.
    """

    __test__ = False  # no pytest class

    setup: Setup
    task: str
    program: str
    scores: dict[str, float]
    unparsed: int
    too_long: int
    seconds: float
