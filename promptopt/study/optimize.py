"""`promptopt.optimize`: the search as one call from Python."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import dspy
from pydantic import JsonValue

from promptopt.candidate import Candidate
from promptopt.config.experiment import DistillConfig, SearchConfig
from promptopt.config.recipe import TrainingRecipe
from promptopt.config.recipe_defaults import TrainingFacts, resolve_recipe
from promptopt.data.loaders import row_id
from promptopt.errors import ConfigError, DataError
from promptopt.evaluation.in_order import checked_parallel
from promptopt.finetune.model_shape import read_shape
from promptopt.metrics.base import Metric
from promptopt.metrics.plain import as_metric
from promptopt.records import DataRow, TrialRecord
from promptopt.rundir import RunDir, hash_inputs
from promptopt.study.runner import SearchProgress
from promptopt.study.search import TRIALS_FOLDER, SearchResult, search
from promptopt.study.task import SearchTask, Training
from promptopt.study.tuner import LORA_GGUF


@dataclass(frozen=True)
class TunedResult:
    """The best of what was tuned.

    Attributes:
        candidate: what the tuned model is asked with.
        lora: LoRA GGUF, for `lm.with_lora(lora)` on the LM that was searched.
        lora_dir: the same weights in PEFT's format, for `promptopt.export` or any trainer.
        score: mean validation score.
    """

    candidate: Candidate
    lora: Path
    lora_dir: Path
    recipe: TrainingRecipe
    score: float


@dataclass(frozen=True)
class OptimizeResult:
    """What `optimize` found.

    Attributes:
        best: the best candidate on frozen weights; `best.apply(program)`, `best.save(path)`.
        best_score, baseline_score: mean validation scores of `best` and of the untouched program. The winner was
            chosen on these rows: measure it on others before you believe the difference.
        tuned: the best trial on tuned weights; None where none was tuned.
    """

    best: Candidate
    best_score: float
    baseline_score: float
    trials: tuple[TrialRecord, ...]
    tuned: TunedResult | None = None


def optimize(
    program: dspy.Module,
    *,
    lm: dspy.BaseLM,
    metric: Metric | Callable[..., float | bool],
    train: Sequence[dspy.Example],
    val: Sequence[dspy.Example],
    trials: int = 40,
    seed: int = 0,
    config: SearchConfig | None = None,
    folder: str | Path | None = None,
    on_progress: Callable[[SearchProgress], None] | None = None,
    parallel: int | None = None,
    hf_dir: str | Path | None = None,
    recipe: TrainingRecipe | None = None,
    distill: DistillConfig | None = None,
    proposer: dspy.BaseLM | None = None,
) -> OptimizeResult:
    """Find the best layout, instructions and demos for `program` on `lm`, and the best weights where `hf_dir` is given.

    Args:
        program: any dspy.Module; left unchanged.
        lm: `promptopt.LlamaCpp` or any other dspy.LM.
        metric: a promptopt Metric, or a DSPy metric `(example, prediction, trace=None) -> float in [0, 1] or bool`.
        train: examples demos are drawn from.
        val: examples candidates are scored on; each knows its inputs (`Example.with_inputs`).
        trials: how many candidates on frozen weights, the untouched program included; overrides `config.trials`.
        config: everything else of the search; see SearchConfig.
        folder: keeps the study in `folder/search`, so that a killed search goes on; a study of another task is set
            aside. None keeps nothing.
        parallel: examples whose programs run at once, each in a thread with its own copy of the program; None = as
            many as `lm.parallel` says, one for an LM that does not say (a server). The result does not depend on it.
        hf_dir: Hugging Face folder of the model whose GGUF `lm` runs. With it one study searches prompts and training
            recipes together (`config.weights`); needs the extras `finetune` and `export`, and `folder`.
        recipe: around which recipes are searched; fields that are left out are chosen from the model's size and the
            number of rows (`promptopt.config.recipe_defaults`).
        distill: where training rows come from; the data's own answers by default.
        proposer: the LM that writes instructions, where `config.pools` asks for some.

    Raises:
        ConfigError: the examples name no inputs, `trials` or `parallel` is not positive, or weights are searched
            without a folder.
        DataError: there are no validation examples, or one lacks a field.
    """
    inputs = _inputs_of(val)
    if parallel is not None:
        checked_parallel(parallel)
    rows, val_rows = _rows(train, inputs), _rows(val, inputs)
    training = _training(hf_dir, recipe, distill, folder, len(rows), config)
    task = SearchTask(program, lm, as_metric(metric), inputs, rows, val_rows, parallel, training, proposer)
    if trials < 1:
        raise ConfigError(f"trials is {trials}; at least 1 is needed (trial 0 is the untouched program).")
    settings = (config or SearchConfig()).model_copy(update={"trials": trials})
    return _searched(task, settings, seed, folder, on_progress)


def _training(
    hf_dir: str | Path | None,
    recipe: TrainingRecipe | None,
    distill: DistillConfig | None,
    folder: str | Path | None,
    train: int,
    config: SearchConfig | None,
) -> Training | None:
    if hf_dir is None:
        return None
    if folder is None:
        raise ConfigError("Tuned weights need a place: give `folder`, e.g. folder='runs/mine'.")
    distill, weights, shape = distill or DistillConfig(), (config or SearchConfig()).weights, read_shape(Path(hf_dir))
    rows = max(1, round(min(train, distill.rows or train) * (1 - distill.val_share)))
    facts = TrainingFacts(shape.hidden, shape.parameters, shape.context, rows)
    resolved = resolve_recipe(recipe or TrainingRecipe(), facts, (weights.recipe if weights else None) or {})
    return Training(Path(hf_dir), resolved.recipe, distill)


def _searched(
    task: SearchTask,
    settings: SearchConfig,
    seed: int,
    folder: str | Path | None,
    on_progress: Callable[[SearchProgress], None] | None,
) -> OptimizeResult:
    untouched = Candidate.of_program(task.program, settings.start).key()
    without = {"storage", "artifacts", "heartbeat_s", *(() if task.training else ("weights",))}
    searched = settings.model_dump(mode="json", exclude=without)
    inputs: JsonValue = {"search": searched, "seed": seed, "untouched": untouched, **task.identity()}
    name = f"search-{hash_inputs(inputs)}"
    if folder is None:
        return _outcome(search(task, settings, seed, None, on_progress, study_name=name), None)
    run = RunDir(Path(folder))
    with run.lock():
        stage = run.stage("search", inputs)
        return _outcome(search(task, settings, seed, stage.path, on_progress, study_name=name), stage.path)


def _outcome(result: SearchResult, folder: Path | None) -> OptimizeResult:
    baseline = result.trials[0].mean_score
    tuned = None
    if result.tuned is not None and folder is not None:
        place = folder / TRIALS_FOLDER / str(result.tuned.weights_of)
        tuned = TunedResult(
            result.tuned.candidate, place / LORA_GGUF, place / "finetune" / "lora", result.tuned.recipe,
            result.tuned.value,
        )  # fmt: skip
    return OptimizeResult(
        result.best, result.best_trial.value or 0.0, 0.0 if baseline is None else baseline, result.trials, tuned
    )


def _inputs_of(examples: Sequence[dspy.Example]) -> tuple[str, ...]:
    if not examples:
        raise ConfigError("`val` is empty; give at least 2 examples to score candidates on.")
    try:
        return tuple(examples[0].inputs().keys())
    except ValueError as error:
        raise ConfigError(
            "The examples do not say which fields are inputs. Call `example.with_inputs('document', 'question')`."
        ) from error


def _rows(examples: Sequence[dspy.Example], inputs: Sequence[str]) -> list[DataRow]:
    rows = []
    for example in examples:
        fields = dict(example.toDict())
        missing = [name for name in inputs if name not in fields]
        if missing:
            raise DataError(f"An example lacks the input field(s) {missing}; it has {sorted(fields)}.")
        rows.append(DataRow(id=row_id({name: fields[name] for name in inputs}), fields=fields))
    return rows
