"""What is kept of a measurement: one line per cell (task, arm, seed)."""

import statistics
from typing import Literal

from pydantic import JsonValue
from search_bench.records import Setup, Spent

from promptopt.candidate import Candidate
from promptopt.config.recipe import TrainingRecipe
from promptopt.records import Record

Unit = Literal["cpu", "wall"]
NOTHING_SPENT = Spent(
    calls=0, prompt_tokens=0, prompt_tokens_computed=0, completion_tokens=0, remembered_calls=0, remembered_tokens=0,
    seconds=0.0,
)  # fmt: skip


def added(first: Spent, second: Spent, sign: int = 1) -> Spent:
    """Return `first` + `sign` * `second`, number by number."""
    more = second.model_dump()
    return Spent(**{name: value + sign * more[name] for name, value in first.model_dump().items()})


def seconds_of(spent: Spent, unit: Unit) -> float:
    """Return the seconds that budgets are counted in."""
    return spent.cpu_seconds if unit == "cpu" else spent.seconds


class Settings(Record):
    """How the studies are set; with setup, task, arm and seed, a cell's identity.

    Attributes:
        trials, tuned, winners, after: of joint's plan; `trials` of prompt_then_recipe's first part too.
        recipe: the start recipe; unit: of the seconds in which arms are made equal.
    """

    trials: int
    tuned: int
    winners: int
    after: int
    demo_sets: int
    demos_per_set: int
    startup: int
    recipe: TrainingRecipe
    unit: Unit


class TrialLine(Record):
    """One trial of an arm.

    Attributes:
        study: name of the arm's study that it belongs to.
        trained: tokens of the rows it trained on, prompts included, times the passes; 0 where it did not train.
        train_wall_s: seconds of the training alone.
    """

    study: str
    number: int
    kind: Literal["frozen", "tuned"]
    state: str
    value: float | None
    weights_of: int | None
    params: dict[str, JsonValue]
    spent: Spent
    trained: float = 0.0
    train_wall_s: float = 0.0
    error: str = ""

    @property
    def trains(self) -> bool:
        """Whether it has trained weights of its own."""
        return self.kind == "tuned" and self.weights_of == self.number


class Tested(Record):
    """What an arm would deploy of one kind of weights, with its test scores.

    Attributes:
        study, trial: where it was found; weights_of: the trial that trained its weights.
        scores: test row id -> score.
        unparsed, too_long: test rows whose answer could not be read, and whose prompt did not fit; both score 0.
    """

    study: str
    trial: int
    weights_of: int | None = None
    val: float
    candidate: Candidate
    params: dict[str, JsonValue]
    recipe: TrainingRecipe | None = None
    scores: dict[str, float]
    unparsed: int
    too_long: int

    @property
    def test(self) -> float:
        """Mean test score."""
        return statistics.fmean(self.scores.values())


class Cell(Record):
    """One arm on one task with one seed.

    Attributes:
        frozen, tuned: the best of each kind; tuned is None where nothing was tuned.
        budget: seconds the arm was given; None = it set the budget.
        spent: of all studies together, test rows not included.
        code: hash of promptopt as it stood; host: of the machine.
    """

    setup: Setup
    task: str
    arm: str
    seed: int
    settings: Settings
    metric: str
    metric_remark: str
    frozen: Tested
    tuned: Tested | None
    budget: float | None
    spent: Spent
    trials: tuple[TrialLine, ...]
    notes: dict[str, JsonValue]
    code: str
    host: dict[str, JsonValue]

    @property
    def deployed(self) -> Tested:
        """What has the higher validation score; the frozen prompt on a tie."""
        return self.tuned if self.tuned is not None and self.tuned.val > self.frozen.val else self.frozen

    @property
    def trainings(self) -> int:
        """How many trials trained, those that were stopped included."""
        return sum(trial.trained > 0 for trial in self.trials)

    def summary(self) -> str:
        """Return one line for people."""
        kind = "tuned" if self.deployed is self.tuned else "frozen"
        return (
            f"validation {self.deployed.val:.3f}, test {self.deployed.test:.3f} ({kind}), {len(self.trials)} trials, "
            f"{self.trainings} trainings, {self.spent.cpu_seconds:.0f} CPU s, {self.spent.seconds:.0f} s"
        )
