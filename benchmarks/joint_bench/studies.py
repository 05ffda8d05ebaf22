"""Studies of an arm: searched once, or grown until a budget is spent."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from joint_bench.ledger import Ledger
from joint_bench.records import Cell, Settings, TrialLine, seconds_of
from search_bench.tasks import Task

from promptopt.config.experiment import DistillConfig, SearchConfig
from promptopt.config.joint import WeightsSearch
from promptopt.config.recipe import TrainingRecipe
from promptopt.lm.llama_cpp.facade import LlamaCpp
from promptopt.records import DataRow, FinetuneResult, TrainingRow, TrialRecord
from promptopt.rundir import read_json, read_jsonl
from promptopt.study.recipe_space import PREFIX
from promptopt.study.search import TRIALS_FOLDER, SearchResult, search
from promptopt.study.space import WEIGHTS
from promptopt.study.task import SearchTask, Training

CHUNK = 0.5
"""Share of the trials the budget is thought to have room for that a study is asked for at once; their costs vary."""
MOST_TRIALS = 300
"""Of one study: proposals that were measured before cost nothing, and no budget would stop them."""


@dataclass
class ArmRun:
    """One arm on one task with one seed: the same rows, LM and settings for all arms.

    Attributes:
        joint: the cell of the arm that sets the budget; None for that arm itself.
        results: study -> what it came to.
    """

    task: Task
    lm: LlamaCpp
    train: Sequence[DataRow]
    val: Sequence[DataRow]
    seed: int
    settings: Settings
    hf_dir: Path
    folder: Path
    ledger: Ledger
    joint: Cell | None = None
    results: dict[str, SearchResult] = field(default_factory=dict)

    @property
    def spent(self) -> float:
        """Seconds that all studies of the arm have cost so far."""
        return seconds_of(self.ledger.total(), self.settings.unit)

    def cost(self, study: str, numbers: Sequence[int]) -> float:
        """Return what the mean of some trials has cost, in seconds."""
        return statistics.fmean(seconds_of(self.ledger.of(study, n), self.settings.unit) for n in numbers)

    def config(self, trials: int, weights: WeightsSearch | None = None, **changes: object) -> SearchConfig:
        """Return promptopt's default search at this benchmark's sizes."""
        mine = self.settings
        sizes = {"demo_sets": mine.demo_sets, "demos_per_set": mine.demos_per_set, "sampler_startup": mine.startup}
        return SearchConfig.model_validate({"trials": trials, "weights": weights, **sizes, **changes})

    def search(self, study: str, config: SearchConfig, recipe: TrainingRecipe | None = None) -> SearchResult:
        """Search, or go on searching, a study of the arm, and book what each trial costs.

        Args:
            recipe: the start recipe, where it is another than that of the settings.
        """
        training = None
        if config.weights is not None:
            training = Training(self.hf_dir, recipe or self.settings.recipe, DistillConfig())
        task = SearchTask(
            self.task.program(), self.lm, self.task.metric, self.task.inputs, self.train, self.val, training=training
        )
        folder = self.folder / study
        folder.mkdir(parents=True, exist_ok=True)
        last = 0

        def on_progress(progress: object) -> None:
            nonlocal last
            last = progress.trial  # type: ignore[attr-defined]
            self.ledger.book(study, last)

        found = self.results[study] = search(task, config, self.seed, folder, on_progress)
        self.ledger.settle(study, last)
        return found

    def grow(
        self, study: str, config: Callable[[int], SearchConfig], budget: float, each: float, before: int = 0
    ) -> SearchResult:
        """Search with as many trials as `budget` has room for, to half a trial.

        Args:
            config: number of trials -> the study with so many.
            budget: of all studies of the arm so far and this one, in seconds.
            each: what a trial is thought to cost, until some are measured.
            before: trials of another kind at the study's beginning, beside those counted by `config`.
        """
        trials = self.ledger.asked(study) or max(1, int(CHUNK * (budget - self.spent) / each))
        while True:
            trials = min(trials, MOST_TRIALS)
            self.ledger.ask(study, trials)
            found = self.search(study, config(trials))
            each = max(0.01, self.cost(study, range(before, before + trials)))
            left = budget - self.spent
            if left < each / 2 or trials == MOST_TRIALS:
                return found
            trials += max(1, int(CHUNK * left / each))

    def lines(self) -> tuple[TrialLine, ...]:
        """Return the trials of all studies."""
        return tuple(self._line(study, trial) for study, found in self.results.items() for trial in found.trials)

    def _line(self, study: str, trial: TrialRecord) -> TrialLine:
        folder = self.folder / study / TRIALS_FOLDER / str(trial.number)
        trained, seconds = self._training(folder)
        return TrialLine(
            study=study, number=trial.number, kind=trial.kind, state=trial.state, value=trial.value,
            weights_of=trial.weights_of, params=trial.params, spent=self.ledger.of(study, trial.number),
            trained=trained, train_wall_s=seconds, error=trial.error,
        )  # fmt: skip

    def _training(self, folder: Path) -> tuple[float, float]:
        """Return the tokens that went through the training in a trial's folder, and its seconds."""
        if not (folder / "finetune" / "result.json").exists():
            return 0.0, 0.0
        done = read_json(folder / "finetune" / "result.json", FinetuneResult)
        rows = read_jsonl(folder / "train.jsonl", TrainingRow)
        tokens = statistics.fmean(self._tokens(row) for row in rows)
        return tokens * len(rows) * done.epochs, done.wall_s

    def _tokens(self, row: TrainingRow) -> int:
        messages = [{"role": message.role, "content": message.content} for message in row.prompt]
        return self.lm.count_tokens(messages) + len(self.lm.tokenize_text(row.completion, special=False))


def prompt_params(params: dict[str, object]) -> dict[str, object]:
    """Return those parameters of a trial that say which prompt it has."""
    return {name: value for name, value in params.items() if name != WEIGHTS and not name.startswith(PREFIX)}
