"""`promptopt.JointOptimizer`: the joint study as a DSPy optimizer, where MIPROv2 or BetterTogether stands."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import dspy
from dspy.teleprompt import Teleprompter

from promptopt.config.experiment import DistillConfig, SearchConfig
from promptopt.config.recipe import TrainingRecipe
from promptopt.data.loaders import row_id
from promptopt.errors import ConfigError
from promptopt.metrics.base import Metric
from promptopt.study.optimize import OptimizeResult, optimize
from promptopt.study.runner import SearchProgress


class JointOptimizer(Teleprompter):
    """Searches prompt layout, instructions, demos and, where `hf_dir` is given, training recipes in one Optuna study.

    Args:
        metric: a promptopt Metric, or a DSPy metric `(example, prediction, trace=None) -> float in [0, 1] or bool`.
        lm: the LM the program runs on; None = the one `dspy.configure(lm=...)` set. A `promptopt.LlamaCpp` where
            weights are searched.
        hf_dir: Hugging Face folder of the model whose GGUF `lm` runs; None = its weights stay as they are.
        folder: keeps the study, so that a killed `compile` goes on; needed where weights are searched.
        trials, seed, config, recipe, distill, proposer, parallel, on_progress: see `promptopt.optimize`.

    Attributes:
        result: everything the last `compile` found; None before.
    """

    def __init__(
        self,
        metric: Metric | Callable[..., float | bool],
        *,
        lm: dspy.BaseLM | None = None,
        hf_dir: str | Path | None = None,
        folder: str | Path | None = None,
        trials: int = 40,
        seed: int = 0,
        config: SearchConfig | None = None,
        recipe: TrainingRecipe | None = None,
        distill: DistillConfig | None = None,
        proposer: dspy.BaseLM | None = None,
        parallel: int | None = None,
        on_progress: Callable[[SearchProgress], None] | None = None,
    ) -> None:
        super().__init__()
        self.metric = metric
        self.lm = lm
        self.result: OptimizeResult | None = None
        self._settings: dict[str, Any] = {
            "hf_dir": hf_dir, "folder": folder, "trials": trials, "seed": seed, "config": config, "recipe": recipe,
            "distill": distill, "proposer": proposer, "parallel": parallel, "on_progress": on_progress,
        }  # fmt: skip

    def compile(
        self,
        student: dspy.Module,
        *,
        trainset: Sequence[dspy.Example],
        teacher: dspy.Module | None = None,
        valset: Sequence[dspy.Example] | None = None,
        **kwargs: Any,
    ) -> dspy.Module:
        """Return a copy of `student` with the best prompt, on the weights that scored best; `student` is unchanged.

        Args:
            valset: examples candidates are scored on; None = four fifths of `trainset`, chosen by content, as in
                MIPROv2. Demos and training rows come from the rest.
            teacher: not used: training answers are the data's own, or those of the best prompt found
                (`distill.teacher`).

        Raises:
            ConfigError: there is no LM, an unknown argument, or what `promptopt.optimize` refuses.
        """
        if kwargs:
            raise ConfigError(f"JointOptimizer.compile takes student, trainset and valset, not {sorted(kwargs)}.")
        lm = self.lm or dspy.settings.lm
        if lm is None:
            raise ConfigError("There is no LM: pass `lm=`, or call dspy.configure(lm=promptopt.LlamaCpp(...)) first.")
        train, val = _split(trainset) if valset is None else (list(trainset), list(valset))
        found = self.result = optimize(student, lm=lm, metric=self.metric, train=train, val=val, **self._settings)
        program = student.deepcopy()
        tuned = found.tuned
        if tuned is not None and tuned.score > found.best_score:
            program = tuned.candidate.apply(program)
            program.set_lm(lm.with_lora(tuned.lora))
        else:
            program = found.best.apply(program)
            program.set_lm(lm)
        program._compiled = True
        return program


def _split(examples: Sequence[dspy.Example]) -> tuple[list[dspy.Example], list[dspy.Example]]:
    """Return (train, val); which side an example is on depends on its content alone."""
    ordered = sorted(examples, key=lambda example: row_id(dict(example.toDict())))
    cut = max(1, len(ordered) // 5)
    return ordered[:cut], ordered[cut:]
