"""`QLoRAProvider`: DSPy's weight optimizers on a local model. Where DSPy's training jobs meet both wings."""

import logging
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dspy.clients.provider import Provider, TrainingJob
from dspy.clients.utils_finetune import TrainDataFormat, TrainingStatus, get_finetune_directory
from pydantic import ValidationError

from promptopt.config.recipe import TrainingRecipe
from promptopt.errors import ConfigError, DataError, TrainingError
from promptopt.lm.llama_cpp.facade import LlamaCpp
from promptopt.lm.protocol import TunedFiles
from promptopt.provider.rows import split_rows, training_rows
from promptopt.provider.served_tokens import check_served_tokens
from promptopt.provider.tuned_model import Base, Serving, base_of, lora_files, read_tuned, run_key, tune
from promptopt.records import LossPoint, Quantization

logger = logging.getLogger(__name__)

_OF_DISTILLATION = frozenset(("student_instructions", "student_demos", "student_reasoning", "row_share", "min_score"))
"""Fields of a recipe that say which rows are made; here DSPy makes them."""
_OF_MEASURING = frozenset(("best_by", "watched_rows"))
"""Fields about a task metric, which DSPy does not pass on to a training."""
_ONE_AT_A_TIME = threading.Lock()
"""DSPy starts a thread per job. Training needs the memory, and torch's random state, for itself."""


class QLoRAJob(TrainingJob):
    """A training that runs: DSPy's job, with its losses.

    Attributes:
        points: the losses so far.
        steps: how many there are in all; 0 before the first point.
    """

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.points: list[LossPoint] = []
        self.steps = 0
        self._stop = threading.Event()

    def cancel(self) -> bool:
        """Stop at the next point; what is trained stays, and the same job goes on from there. Its result is an error.

        Returns:
            Whether there was anything to stop.
        """
        self._stop.set()
        return not self.done()

    def status(self) -> TrainingStatus:
        """Return DSPy's word for where it is."""
        if not self.done():
            return TrainingStatus.running if self.points else TrainingStatus.pending
        if not isinstance(self.result(), Exception):
            return TrainingStatus.succeeded
        return TrainingStatus.cancelled if self._stop.is_set() else TrainingStatus.failed

    def on_progress(self, point: LossPoint, steps: int) -> None:
        """Take down one point.

        Raises:
            TrainingError: the job was cancelled.
        """
        self.points.append(point)
        self.steps = steps
        logger.info("step %d of %d: loss %s, evaluation loss %s", point.step, steps, point.loss, point.eval_loss)
        if self._stop.is_set():
            raise TrainingError(f"The job was cancelled at step {point.step} of {steps}; start it again to go on.")


class QLoRAProvider(Provider):
    """Tunes local models for `dspy.BootstrapFinetune` and `dspy.BetterTogether`, with QLoRA, on a CPU or GPU.

        lm = promptopt.LlamaCpp("model.gguf", provider=promptopt.QLoRAProvider("hf-folder-of-the-model"))
        program.set_lm(lm)
        dspy.BootstrapFinetune(metric=metric, train_kwargs={"epochs": 3}).compile(program, trainset=trainset)

    DSPy's `train_kwargs` are fields of `TrainingRecipe`, by name. The rows are what the adapter writes: give
    BootstrapFinetune (or `dspy.configure`) the adapter that the program runs under. Equal data, recipe and base give
    the same model, trained once.

    The tuned LM shares its base with the one it came from, and is loaded when it is asked: `kill` frees the memory,
    `launch` loads ahead. Tuned again, it goes on from its own weights.

    Args:
        hf_dir: Hugging Face folder that the LM's GGUF was made from. Never written to.
        folder: of the runs, one folder each; None = DSPy's (`DSPY_FINETUNEDIR`).
        recipe: what `train_kwargs` leave open.
        serving: `lora` puts the LoRA weights on top of the LM's own GGUF, at once and in little room; `merged` makes a
            GGUF of its own, in `quantization`, closer to the weights that were trained.
        val_share: share of the prompts, by content hash, that measures the evaluation loss.
        seed: of the training.

    Raises:
        ConfigError: an argument is out of range, or the folder is no Hugging Face model.
    """

    def __init__(
        self,
        hf_dir: Path | str,
        *,
        folder: Path | str | None = None,
        recipe: TrainingRecipe | None = None,
        serving: Serving = "lora",
        quantization: Quantization = "q8_0",
        val_share: float = 0.1,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.finetunable = True
        self.TrainingJob = QLoRAJob
        self.hf_dir = Path(hf_dir).expanduser().resolve()
        self.folder = Path(get_finetune_directory() if folder is None else folder).expanduser().resolve()
        self.recipe = TrainingRecipe() if recipe is None else recipe
        if not (self.hf_dir / "config.json").is_file():
            raise ConfigError(
                f"hf_dir {str(self.hf_dir)!r} is no Hugging Face model folder: it has no config.json. Give the folder "
                "that the LM's GGUF was made from."
            )
        if serving not in ("lora", "merged"):
            raise ConfigError(f"serving is {serving!r}; allowed are 'lora' and 'merged'.")
        if not 0 < val_share < 1:
            raise ConfigError(f"val_share is {val_share}; allowed are numbers between 0 and 1.")
        self._serving = serving
        self._quantization: Quantization = quantization
        self._val_share = val_share
        self._seed = seed

    def finetune(
        self,
        job: TrainingJob,
        model: str,
        train_data: Sequence[Mapping[str, Any]],
        train_data_format: TrainDataFormat | str | None,
        train_kwargs: Mapping[str, Any] | None = None,
    ) -> str:
        """Tune `model` (a GGUF, or the name of a model tuned here) and return the name of what came out.

        Raises:
            ConfigError: `train_kwargs` are not those of a recipe, or `model` is not known.
            DataError: the data is no chat data, or too little.
            TrainingError: prompts and answers are served as other tokens than they are trained, or training failed.
            ExportError: llama.cpp cannot run the weights.
        """
        if train_data_format not in (TrainDataFormat.CHAT, None):
            raise DataError(f"The training data is {train_data_format!r}; QLoRAProvider trains on 'chat' data.")
        recipe = self._recipe_with(train_kwargs or {})
        rows = training_rows(train_data)
        sides = split_rows(rows, self._val_share)
        with _ONE_AT_A_TIME:
            base = self._base(model)
            check_served_tokens(base.gguf, base.hf_dir, rows)
            key = run_key(base, sides, recipe, self._seed, f"{self._serving} {self._quantization}")
            name = f"llama_cpp/{self.hf_dir.name}-tuned-{key}"
            report = job.on_progress if isinstance(job, QLoRAJob) else None
            tune(name, self.folder / key, base, sides, recipe, self._seed, self._serving, self._quantization, report)
        return name

    def tuned(self, model: str) -> TunedFiles | None:
        """Return the files of a model that `finetune` named; None for any other name."""
        folder = self._folder_of(model)
        found = read_tuned(folder)
        if found is None or found.name != model:
            return None
        gguf = Path(found.base_gguf) if found.gguf is None else folder / found.gguf
        return TunedFiles(gguf, lora_files(folder, found))

    def launch(self, lm: Any, launch_kwargs: Mapping[str, Any] | None = None) -> None:
        """Load the LM's model, unless it is loaded; its copies share it."""
        if isinstance(lm, LlamaCpp):
            lm.chat.load()

    def kill(self, lm: Any, launch_kwargs: Mapping[str, Any] | None = None) -> None:
        """Free the memory of the LM's model, for its copies too; whichever is asked next loads it again."""
        if isinstance(lm, LlamaCpp):
            lm.chat.unload()

    def _folder_of(self, model: str) -> Path:
        return self.folder / model.rpartition("-")[2]

    def _base(self, model: str) -> Base:
        tuned = read_tuned(self._folder_of(model))
        if tuned is not None and tuned.name == model:
            return base_of(self._folder_of(model), tuned)
        gguf = Path(model)
        if not gguf.is_file():
            raise ConfigError(
                f"The model to tune is {model!r}: neither a GGUF file nor a model that was tuned in {self.folder}. "
                "Make the LM with promptopt.LlamaCpp(path, provider=...), and keep the folder of the runs."
            )
        return Base(self.hf_dir, gguf.resolve())

    def _recipe_with(self, train_kwargs: Mapping[str, Any]) -> TrainingRecipe:
        """Return the provider's recipe with what DSPy was given beside it."""
        allowed = [name for name in TrainingRecipe.model_fields if name not in _OF_DISTILLATION | _OF_MEASURING]
        unknown = sorted(set(train_kwargs) - set(allowed))
        if unknown:
            raise ConfigError(
                f"train_kwargs has {', '.join(map(repr, unknown))}; allowed are fields of TrainingRecipe: "
                f"{', '.join(allowed)}."
            )
        try:
            return TrainingRecipe.model_validate({**self.recipe.model_dump(), **train_kwargs})
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise ConfigError(f"train_kwargs: {place} is {first['input']!r}: {first['msg']}.") from error
