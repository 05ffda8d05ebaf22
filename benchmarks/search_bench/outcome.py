"""What a method is given, and what it hands back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from pydantic import JsonValue
from search_bench.meter import Meter
from search_bench.records import SavedProgram, Spent
from search_bench.tasks import Task

from promptopt.lm.llama_cpp.facade import LlamaCpp
from promptopt.records import DataRow


@dataclass(frozen=True)
class Options:
    """How much the methods may do.

    Attributes:
        trials: of promptopt; random_trials: of the random search.
        mipro: MIPROv2's `auto`.
        bootstrap_candidates: num_candidate_programs of BootstrapFewShotWithRandomSearch.
        metric_threshold: from which score on DSPy takes an answer of the model for a demo; None = any but 0.
        remember: whether a request that repeats one of the same cell is answered from memory.
    """

    trials: int = 40
    random_trials: int = 40
    mipro: Literal["light", "medium", "heavy"] = "light"
    bootstrap_candidates: int = 16
    metric_threshold: float | None = None
    remember: bool = True


@dataclass(frozen=True)
class Run:
    """One method on one task with one seed: the same rows and the same LM for all methods."""

    task: Task
    lm: LlamaCpp
    meter: Meter
    train: Sequence[DataRow]
    val: Sequence[DataRow]
    seed: int
    options: Options


@dataclass(frozen=True)
class Found:
    """A program with its mean score on all validation rows, and what had been spent by then."""

    spent: Spent
    score: float
    program: SavedProgram


@dataclass(frozen=True)
class Outcome:
    """All programs that were fully scored, in order of time."""

    found: Sequence[Found]
    notes: Mapping[str, JsonValue] = field(default_factory=dict)
