"""What a tuned trial does before it is scored: rows in its layout, training with rungs, LoRA weights on the GGUF.

The only room, with the pipeline, where both wings meet. A trial is scored on what would be deployed: its LoRA weights
as a GGUF, applied at run time to the quantized base; nothing is merged. The training base stays loaded between trials.
"""

import math
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna

from promptopt.candidate import Candidate
from promptopt.config.joint import HalvingConfig
from promptopt.config.recipe import TrainingRecipe
from promptopt.distill.dataset import distilled_rows
from promptopt.distill.rollouts import Rollout, candidate_rollouts, gold_rollouts
from promptopt.distill.student import student_candidate
from promptopt.errors import ConfigError, LMError
from promptopt.evaluation.evaluate import evaluate_rows
from promptopt.records import ExampleRecord, FinetuneResult, Record
from promptopt.rundir import read_json, read_jsonl, write_json, write_jsonl
from promptopt.study.halving import RUNGS, TRAINING
from promptopt.study.objective import CandidateObjective, Weights
from promptopt.study.task import SearchTask, Training

if TYPE_CHECKING:
    from promptopt.finetune.plan import OnProgress
    from promptopt.finetune.resident import ResidentBase
    from promptopt.finetune.rungs import Judgement, RungPoint

LORA_GGUF = "lora.gguf"
KEPT_FILES = (LORA_GGUF, "trained.json", "train.jsonl", "val.jsonl", "finetune/result.json",
              "finetune/lora/adapter_config.json", "finetune/lora/adapter_model.safetensors")  # fmt: skip
"""What other workers and later stages need of a trained trial."""


class TrainedWeights(Record):
    """What a training of the study left behind, beside the files of its folder.

    Attributes:
        candidate: the student's: what the rows were rendered under.
        lora_sha256: of the LoRA GGUF.
        stopped: whether successive halving stopped it.
    """

    candidate: Candidate
    recipe: TrainingRecipe
    lora_sha256: str
    train_rows: int
    steps: int
    best_eval_loss: float
    stopped: bool = False


@dataclass(frozen=True)
class TrainingProgress:
    """A moment of a training; `text` is for people."""

    step: int
    steps: int
    text: str


class Tuner:
    """Trains the study's tuned trials, one after the other.

    Args:
        folder: gets one folder per trained trial.
        seed: of every training, so that trials differ by their parameters alone.

    Raises:
        ConfigError: the LM takes no LoRA weights, or gold answers are to be taught to a chain.
    """

    def __init__(
        self,
        task: SearchTask,
        training: Training,
        objective: CandidateObjective,
        halving: HalvingConfig,
        folder: Path,
        seed: int,
    ) -> None:
        if not hasattr(task.lm, "with_lora"):
            raise ConfigError(
                f"Weights are tuned and scored on a local GGUF model; {type(task.lm).__name__} cannot take LoRA "
                "weights. Use promptopt.LlamaCpp, or set search.weights: null."
            )
        predictors = len(task.program.named_predictors())
        if training.distill.teacher == "gold" and predictors != 1:
            raise ConfigError(
                f"distill.teacher `gold` needs a program of one predictor, not of {predictors}: the data does not say "
                "what the inner ones answer. Use `teacher: candidate`."
            )
        self._task = task
        self._training = training
        self._objective = objective
        self._halving = halving
        self._folder = folder
        self._seed = seed
        self._rollouts: dict[str, list[Rollout]] = {}
        self._unused: list[Weights] = []

    @cached_property
    def _resident(self) -> "ResidentBase":
        from promptopt.finetune.resident import ResidentBase

        return ResidentBase(self._training.base_dir, self._training.recipe.base_quantization)

    def close(self) -> None:
        """Free the training base."""
        if "_resident" in self.__dict__:
            self._resident.close()
            del self.__dict__["_resident"]

    def folder(self, slot: int) -> Path:
        """Return the folder of the trial at `slot`."""
        return self._folder / str(slot)

    def student(self, candidate: Candidate, recipe: TrainingRecipe) -> Candidate:
        """Return what is left of `candidate` for a model that was trained with `recipe`."""
        return student_candidate(candidate, self._training.distill.teacher, recipe)

    def trained(self, slot: int) -> TrainedWeights | None:
        """Return what the trial at `slot` trained; None if its files are not here."""
        path = self.folder(slot) / "trained.json"
        return read_json(path, TrainedWeights) if path.exists() else None

    def weights(self, slot: int, trained: TrainedWeights) -> Weights:
        """Return the base with the LoRA weights of the trial at `slot`."""
        return self._on_base(self.folder(slot) / LORA_GGUF, trained.lora_sha256)

    def release(self, weights: Weights) -> None:
        """Unload LoRA weights that are not needed now; those that still answer rows begun in vain go next time."""
        if weights.key:
            self._unused.append(weights)
        busy = []
        for unused in self._unused:
            lm: Any = unused.lm
            try:
                lm.chat.free_lora(lm.lora)
            except LMError:
                busy.append(unused)
        self._unused = busy

    def train(
        self,
        trial: optuna.Trial,
        slot: int,
        teacher: Candidate,
        candidate: Candidate,
        recipe: TrainingRecipe,
        on_progress: Callable[[TrainingProgress], None] | None = None,
    ) -> TrainedWeights:
        """Return the trial's weights, trained unless they are there; goes on from the last checkpoint after a kill.

        Args:
            teacher: writes the training answers, where `distill.teacher` is `candidate`.

        Raises:
            DataError: too few answers are worth teaching.
            TrainingError: rows do not fit, or the training diverged.
        """
        done = self.trained(slot)
        if done is not None:
            self._finish(trial, slot)
            return done
        from promptopt.export.lora_gguf import convert_lora
        from promptopt.finetune.train import finetune

        folder = self.folder(slot)
        student = self.student(candidate, recipe)
        rows = self._write_rows(folder, student, recipe, teacher)
        trial.set_user_attr(TRAINING, True)
        if not (folder / "finetune").exists():
            # A dead worker's rungs came with its trial; its checkpoints did not.
            trial.set_user_attr(RUNGS, [])
        with_rungs = _with_rungs(recipe, self._halving)
        halting = _Halting(self, trial, student, folder, with_rungs)
        result = finetune(
            folder / "train.jsonl",
            folder / "val.jsonl",
            self._training.base_dir,
            with_rungs,
            folder / "finetune",
            self._seed,
            _reporter(on_progress),
            resident=self._resident,
            on_checkpoint=halting.judge if self._halving.enabled or recipe.best_by == "metric" else None,
        )
        made = convert_lora(folder / "finetune" / result.lora_dir, self._training.base_dir, folder / LORA_GGUF)
        trained = TrainedWeights(
            candidate=student, recipe=recipe, lora_sha256=made.sha256, train_rows=rows, steps=result.steps,
            best_eval_loss=result.best_eval_loss, stopped=halting.ended(result),
        )  # fmt: skip
        write_json(folder / "trained.json", trained)
        self._finish(trial, slot)
        return trained

    def forget(self, slot: int) -> None:
        """Set aside what this process trained at `slot`: another did it again, and that one's weights count."""
        shutil.rmtree(self.folder(slot), ignore_errors=True)

    def _finish(self, trial: optuna.Trial, slot: int) -> None:
        trial.set_user_attr(TRAINING, False)
        # The weights are published; optimizer states of every trial would fill the disk.
        shutil.rmtree(self.folder(slot) / "finetune" / "checkpoints", ignore_errors=True)

    def rung_records(self, slot: int, student: Candidate, lora: Path, key: str, step: int) -> list[ExampleRecord]:
        """Return the records of the rung's rows under the weights in `lora`; those already measured are read."""
        rows = self._objective.rows[: self._halving.rows]
        store = self.folder(slot) / "rungs" / f"{step}.jsonl"
        weights = self._on_base(lora, key)
        records = evaluate_rows(
            self._objective.evaluator(student, weights), rows, store, parallel=self._objective.parallel
        )
        self.release(weights)
        return records

    @property
    def base_dir(self) -> Path:
        """The Hugging Face folder of the base."""
        return self._training.base_dir

    @property
    def halving(self) -> HalvingConfig:
        """When a training is stopped."""
        return self._halving

    def _on_base(self, lora: Path, key: str) -> Weights:
        lm: Any = self._task.lm
        return Weights(lm.with_lora(lora), key)

    def _write_rows(self, folder: Path, student: Candidate, recipe: TrainingRecipe, teacher: Candidate) -> int:
        distill = self._training.distill
        least = distill.min_score if recipe.min_score is None else recipe.min_score
        rows = distilled_rows(
            self._task.program, student, self._answers(teacher), least, distill.val_share, recipe.row_share
        )
        write_jsonl(folder / "train.jsonl", rows.train)
        write_jsonl(folder / "val.jsonl", rows.val)
        return len(rows.train)

    def _answers(self, teacher: Candidate) -> list[Rollout]:
        """Return the teacher's answers, asked for once in a study."""
        distill = self._training.distill
        rows = list(self._task.train[: distill.rows])
        key = "gold" if distill.teacher == "gold" else teacher.key()[:24]
        if key not in self._rollouts:
            if distill.teacher == "gold":
                self._rollouts[key] = gold_rollouts(self._task.program, self._task.metric, rows, self._task.inputs)
            else:
                evaluator = self._objective.evaluator(teacher, Weights(self._task.lm))
                store = self._folder / f"teacher-{key}.jsonl"
                self._rollouts[key] = candidate_rollouts(evaluator, rows, store)
        return self._rollouts[key]


class _Halting:
    """Judges one training at its rungs."""

    def __init__(
        self, tuner: Tuner, trial: optuna.Trial, student: Candidate, folder: Path, recipe: TrainingRecipe
    ) -> None:
        self._evaluations = recipe.epochs * recipe.eval_per_epoch
        self._every = recipe.best_by == "metric"
        self._tuner = tuner
        self._trial = trial
        self._student = student
        self._folder = folder
        self._stopped = False

    def ended(self, result: FinetuneResult) -> bool:
        """Return whether the training was stopped at a rung; also where a kill came between the stop and this."""
        noted = self._trial.user_attrs.get(RUNGS, [])
        at_rung = bool(noted) and noted[-1][2] == result.steps and result.stopped_early
        return self._stopped or (at_rung and self._trial.should_prune())

    def judge(self, point: "RungPoint") -> "Judgement":
        """Return whether training stops at this checkpoint, with the task metric where it was measured."""
        from promptopt.finetune.rungs import Judgement

        noted: list[list[Any]] = list(self._trial.user_attrs.get(RUNGS, []))
        metric = next((float(score) for score, _, step in noted if step == point.step), None)
        if metric is None:
            at_rung = self._at_rung(point, len(noted))
            metric = self._score(point) if at_rung or self._every else None
            if not at_rung:
                return Judgement(metric=metric)
            noted.append([metric, point.eval_loss, point.step])
            self._trial.set_user_attr(RUNGS, noted)
        self._stopped = self._trial.should_prune()
        return Judgement(self._stopped, metric)

    def _at_rung(self, point: "RungPoint", passed: int) -> bool:
        halving = self._tuner.halving
        due = rung_at(point.step, point.total_steps, self._evaluations, halving.rungs)
        return halving.enabled and point.step < point.total_steps and due > passed

    def _score(self, point: "RungPoint") -> float:
        from promptopt.export.lora_gguf import convert_lora

        lora = self._folder / "rungs" / f"{point.step}.gguf"
        lora.parent.mkdir(parents=True, exist_ok=True)
        made = convert_lora(point.lora_dir, self._tuner.base_dir, lora)
        try:
            slot = int(self._folder.name)
            records = self._tuner.rung_records(slot, self._student, lora, made.sha256, point.step)
        finally:
            with suppress(OSError):
                lora.unlink()
        scores = [record.score for record in records if record.score is not None]
        return sum(scores) / len(scores) if scores else 0.0


def stopped_scores(tuner: Tuner, trial: optuna.Trial, slot: int) -> tuple[tuple[ExampleRecord, ...], dict[int, float]]:
    """Return the records and scores (by step of the race) of the last rung of a training that was stopped."""
    _, _, step = trial.user_attrs[RUNGS][-1]
    records = tuple(read_jsonl(tuner.folder(slot) / "rungs" / f"{step}.jsonl", ExampleRecord))
    return records, {number: record.score for number, record in enumerate(records) if record.score is not None}


def rung_at(step: int, total_steps: int, evaluations: float, rungs: int) -> int:
    """Return how many rungs, evenly spread over a training, have been reached at an evaluation.

    Evaluations fall on whole steps: a rung counts as reached at the evaluation nearest to it.
    """
    half_way_to_the_next = total_steps / evaluations / 2
    return min(rungs, int((step + half_way_to_the_next) / total_steps * (rungs + 1)))


def _with_rungs(recipe: TrainingRecipe, halving: HalvingConfig) -> TrainingRecipe:
    """Return `recipe` with as few evaluations as let each rung, at 1, 2, … of rungs + 1 parts, fall on one."""
    if not halving.enabled:
        return recipe
    parts = halving.rungs + 1
    needed = parts // math.gcd(int(recipe.epochs), parts) if recipe.epochs.is_integer() else parts
    # A multiple, so that what the recipe asks for is evaluated too.
    return recipe.model_copy(update={"eval_per_epoch": needed * math.ceil(recipe.eval_per_epoch / needed)})


def _reporter(on_progress: Callable[[TrainingProgress], None] | None) -> "OnProgress | None":
    if on_progress is None:
        return None
    from promptopt.finetune.watch import TrainingMoment, TrainingWatch

    watch = TrainingWatch()

    def report(moment: TrainingMoment, steps: int) -> None:
        text = f"training {watch.text(moment, steps)}, {watch.pace(moment, steps)}"
        on_progress(TrainingProgress(moment.step, steps, text))

    return report
