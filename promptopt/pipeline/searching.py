"""The stage `search`, its workers, and what it found."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import dspy
from pydantic import JsonValue

from promptopt.candidate import Candidate, load_candidate
from promptopt.config.pools import ProposerConfig, SameProposer
from promptopt.pipeline.context import RunContext
from promptopt.pipeline.prepare import base_gguf, read_split
from promptopt.pipeline.recipe import recipe_of, recipe_settings
from promptopt.pipeline.writers import writer_lm
from promptopt.rundir import Stage, read_json
from promptopt.study.runner import SearchProgress
from promptopt.study.search import TRIALS_FOLDER, TunedWinner, search, work
from promptopt.study.task import SearchTask, Training, metric_identity, program_identity

SEARCH_AFTER = ("data", "base")
_WRITING_TEMPERATURE = 1.0


def search_settings(context: RunContext) -> JsonValue:
    """Return what the stage `search` depends on."""
    config = context.config
    tunes = searches_weights(context)
    without = {"storage", "artifacts", "heartbeat_s", *(() if tunes else ("weights",))}
    return {
        "search": config.search.model_dump(mode="json", exclude=without),
        "training": _training_settings(context) if tunes else None,
        "lm": config.lm.model_dump(mode="json", exclude={"n_threads", "n_gpu_layers"}),
        "untouched": context.untouched.key(),
        "metric": metric_identity(context.metric),
        **program_identity(context.program),
        "seed": config.seed,
    }


def _training_settings(context: RunContext) -> JsonValue:
    return {"finetune": recipe_settings(context), "distill": context.config.distill.model_dump(mode="json")}


def run_search(context: RunContext, stage: Stage) -> dict[str, JsonValue]:
    """Search prompts, and weights where they can be tuned; write search/candidate.json, tuned.json, trials.jsonl."""
    config = context.config
    task, shown, name = search_task(context), search_shown(context), study_name(stage.inputs)
    result = search(task, config.search, config.seed, stage.path, shown, study_name=name)
    tuned = result.tuned
    return {
        "best_trial": result.best_trial.number,
        "best_value": result.best_trial.value,
        "best_tuned_trial": None if tuned is None else tuned.trial,
        "best_tuned_value": None if tuned is None else tuned.value,
    }


def work_on_search(context: RunContext) -> int:
    """Join the study of this experiment in its storage; return how many trials were run here."""
    config = context.config
    name = study_name(context.key(search_settings(context), SEARCH_AFTER))
    # By study: in a container host and process are the same every time, and files of another study must not be met.
    folder = context.run.path / "workers" / name / f"{socket.gethostname()}-{os.getpid()}"
    return work(search_task(context), config.search, config.seed, folder, search_shown(context), study_name=name)


def searches_weights(context: RunContext) -> bool:
    """Return whether the study also trains: the experiment wants it, and the model has weights to train."""
    return context.config.search.weights is not None and context.source.hf_dir is not None


def study_name(key: str) -> str:
    """Return the study's name in its storage: equal experiments, equal names, on every machine.

    Args:
        key: of the stage's inputs.
    """
    return f"search-{key}"


def search_task(context: RunContext) -> SearchTask:
    """Return what is searched for."""
    config = context.config
    hf_dir = context.source.hf_dir
    tunes = searches_weights(context)
    return SearchTask(
        context.program,
        context.lm(base_gguf(context)),
        context.metric,
        config.data.inputs,
        read_split(context, "train"),
        read_split(context, "val"),
        training=Training(hf_dir, recipe_of(context), config.distill) if hf_dir is not None and tunes else None,
        proposer=_proposer(context, config.search.pools.proposer),
    )


def _proposer(context: RunContext, asked: ProposerConfig | None) -> dspy.BaseLM | None:
    """Return the LM that writes instructions; it stays loaded beside the searched one."""
    if asked is None:
        return None
    if isinstance(asked, SameProposer):
        return context.lm(base_gguf(context)).copy(temperature=_WRITING_TEMPERATURE)
    return writer_lm(asked, context.config.seed, _WRITING_TEMPERATURE)


def search_shown(context: RunContext) -> Callable[[SearchProgress], None]:
    """Return what tells `context.progress` how the search goes."""

    def on_progress(progress: SearchProgress) -> None:
        best = "" if progress.best is None else f", best {progress.best:.3f}"
        examples = f"{progress.examples}/{progress.rows} examples, {progress.mean_score:.3f}"
        text = f"trial {progress.trial}: {progress.training or examples}{best}"
        context.progress.step(progress.trial, progress.trials, text, progress.speed.text)

    return on_progress


def tuned_winner(context: RunContext) -> TunedWinner | None:
    """Return the best trial on tuned weights; None where the study tuned none, or was about prompts alone."""
    path = context.stages["search"].path / "tuned.json"
    return read_json(path, TunedWinner) if path.exists() else None


def trained_folder(context: RunContext, winner: TunedWinner) -> Path:
    """Return the folder of the trial that trained the winner's weights."""
    return context.stages["search"].path / TRIALS_FOLDER / str(winner.weights_of)


def best_candidate(context: RunContext) -> Candidate:
    """Return the winner of the search."""
    return load_candidate(context.stages["search"].path / "candidate.json")
