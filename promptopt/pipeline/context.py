"""What the stages of a run share: the config, the folder, and the objects the config names, built once and late."""

import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import dspy
from pydantic import JsonValue

from promptopt.candidate import Candidate
from promptopt.config.experiment import ExperimentConfig
from promptopt.config.load import import_object
from promptopt.config.recipe_defaults import ResolvedRecipe
from promptopt.errors import ConfigError, StageError
from promptopt.lm.llama_cpp.facade import LlamaCpp
from promptopt.metrics.base import Metric
from promptopt.pipeline.judging import experiment_metric
from promptopt.pipeline.models import ModelSource, model_source
from promptopt.pipeline.progress import Progress
from promptopt.rundir import RunDir, Stage, hash_inputs


@dataclass
class RunContext:
    """One run.

    Attributes:
        open_test_again: why the test split may be read for another outcome of the search; empty = it may not.
        stages: the stages opened so far, by name; later ones are keyed by the inputs of those they build on.
        resolved: the recipe without gaps, once it was asked for (see `pipeline.recipe`).
    """

    config: ExperimentConfig
    run: RunDir
    progress: Progress
    open_test_again: str = ""
    stages: dict[str, Stage] = field(default_factory=dict)
    resolved: ResolvedRecipe | None = None
    _lms: dict[Path, LlamaCpp] = field(default_factory=dict)

    @cached_property
    def program(self) -> dspy.Module:
        """The program of the experiment."""
        return build_program(self.config.program)

    @cached_property
    def metric(self) -> Metric:
        """The metric of the experiment."""
        return experiment_metric(self.config)

    @cached_property
    def source(self) -> ModelSource:
        """The files of the experiment's model."""
        return model_source(self.config)

    @property
    def hf_dir(self) -> Path:
        """The Hugging Face folder of the experiment's model.

        Raises:
            StageError: the model is a GGUF alone.
        """
        if self.source.hf_dir is None:
            raise StageError(
                "The experiment's model is a GGUF alone, which cannot be trained. Name its Hugging Face folder as "
                "model.hf_dir, or stop after `promptopt search`."
            )
        return self.source.hf_dir

    @property
    def untouched(self) -> Candidate:
        """The program as it was written, in the start layout."""
        return Candidate.of_program(self.program, self.config.search.start)

    def lm(self, gguf: Path) -> LlamaCpp:
        """Return the LM on `gguf`, loaded once per run."""
        if gguf not in self._lms:
            # One model at a time: a stage must fit into memory alone, not beside those before it.
            self.close_lms()
            self._lms[gguf] = self.new_lm(gguf)
        return self._lms[gguf]

    def new_lm(self, gguf: Path, *, alone: bool = False) -> LlamaCpp:
        """Return an LM on `gguf` with this run's settings, which the caller closes.

        Args:
            alone: in a process of its own (where the system can), and every answer computed: for measuring.
        """
        settings = self.config.lm
        return LlamaCpp(
            gguf,
            n_ctx=settings.n_ctx,
            max_tokens=settings.max_tokens,
            temperature=settings.temperature,
            parallel=settings.parallel,
            # Threads meet the engine in any order; the same command must still give the same answers.
            batch_invariant=True,
            n_threads=settings.n_threads,
            n_gpu_layers=settings.n_gpu_layers,
            seed=self.config.seed,
            isolated=alone and os.name == "posix",
            cache_dir=None if alone else "user",
        )

    def close_lms(self) -> None:
        """Free the loaded model, before training or another model needs its memory."""
        while self._lms:
            self._lms.popitem()[1].close()

    def key(self, settings: JsonValue, after: tuple[str, ...]) -> str:
        """Return the key of a stage with these settings after the stages `after` that this run has."""
        return hash_inputs(self._inputs(settings, after))

    def take(self, name: str, settings: JsonValue, after: tuple[str, ...]) -> bool:
        """Use stage `name` as another process finished it, without touching anything; return whether it is there."""
        found = self.run.finished(name, self._inputs(settings, after))
        if found is not None:
            self.stages[name] = found
        return found is not None

    def _inputs(self, settings: JsonValue, after: tuple[str, ...]) -> dict[str, JsonValue]:
        upstream: JsonValue = {earlier: self.stages[earlier].inputs for earlier in after if earlier in self.stages}
        return {"settings": settings, "after": upstream}

    def open(self, name: str, settings: JsonValue, after: tuple[str, ...]) -> Stage:
        """Open stage `name`; its result depends on `settings` and on those of the stages `after` that this run has."""
        self.stages[name] = self.run.stage(name, self._inputs(settings, after))
        return self.stages[name]


def build_program(path: str) -> dspy.Module:
    """Return the dspy.Module that `path` names: an instance, a Module class, or a function that makes one.

    Raises:
        ConfigError: the path does not lead to a program.
    """
    named = import_object(path, what="program")
    try:
        made = named if isinstance(named, dspy.Module) else named() if callable(named) else named
    except Exception as error:
        raise ConfigError(f"The program {path!r} failed to build: {type(error).__name__}: {error}.") from error
    if not isinstance(made, dspy.Module):
        raise ConfigError(
            f"The program {path!r} is a {type(made).__name__}, not a dspy.Module. Name a module instance, a Module "
            "class, or a function without arguments that returns one."
        )
    return made
