"""The road: the stages in order, each run unless it is finished. Reads as the table of contents of a run."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from promptopt.config.experiment import ExperimentConfig
from promptopt.config.redact import without_passwords
from promptopt.errors import ConfigError, StageError
from promptopt.pipeline.context import RunContext
from promptopt.pipeline.judgement import MEASURED, evaluate_settings, run_evaluate
from promptopt.pipeline.prepare import base_settings, data_settings, run_base, run_data
from promptopt.pipeline.progress import Progress, Silent
from promptopt.pipeline.prompts import distill_settings, run_distill
from promptopt.pipeline.reporting import report_settings, run_report, show_report
from promptopt.pipeline.searching import (
    SEARCH_AFTER,
    run_search,
    search_settings,
    searches_weights,
    tuned_winner,
    work_on_search,
)
from promptopt.pipeline.weights import export_settings, finetune_settings, run_export, run_finetune
from promptopt.rundir import RunDir, Stage, write_text


@dataclass(frozen=True)
class StagePlan:
    """One stage of the road.

    Attributes:
        settings: what the stage depends on, beside the stages `after`; a changed setting starts a fresh folder.
        work: does it, in the stage's folder, and returns what stage.json notes. May be killed and called again.
    """

    name: str
    after: tuple[str, ...]
    settings: Callable[[RunContext], JsonValue]
    work: Callable[[RunContext, Stage], dict[str, JsonValue]]


ROAD = (
    StagePlan("data", (), data_settings, run_data),
    StagePlan("base", (), base_settings, run_base),
    StagePlan("search", SEARCH_AFTER, search_settings, run_search),
    StagePlan("distill", ("search",), distill_settings, run_distill),
    StagePlan("finetune", ("distill", "base"), finetune_settings, run_finetune),
    StagePlan("export", ("finetune",), export_settings, run_export),
    StagePlan("evaluate", MEASURED, evaluate_settings, run_evaluate),
    StagePlan("report", ("evaluate",), report_settings, run_report),
)
WEIGHTS_STAGES = ("distill", "finetune", "export")
RUN_WITHOUT_ASKING = ("data", "base")
_LOCK_ATTEMPTS = 600


def run_experiment(
    config: ExperimentConfig, progress: Progress | None = None, only: str | None = None, *, open_test_again: str = ""
) -> Path:
    """Run the stages of an experiment that are not finished; the same call after a kill goes on.

    Args:
        only: one stage to run, after the cheap preparations; the stages before it must be finished. None runs all.
        open_test_again: why test rows may be read on which another outcome of the search was measured before.

    Returns:
        The run's folder.

    Raises:
        StageError: `only` needs a stage that has not finished, or a model that can be trained.
        PromptoptError: whatever a stage finds wrong; everything finished before stays finished.
    """
    run = RunDir(Path(config.run_dir) if config.run_dir else Path("runs") / config.name)
    context = RunContext(config, run, progress or Silent(), open_test_again)
    road = _road(context, only)
    with run.lock():
        write_text(run.path / "experiment.json", without_passwords(config.model_dump_json(indent=2)) + "\n")
        for plan in road:
            if plan.name in WEIGHTS_STAGES and _nothing_was_tuned(context):
                context.progress.stage(plan.name, "left out: no tuned trial of the study could win")
                continue
            _pass(context, plan, only)
            if plan.name == only:
                break
        if "report" in context.stages:
            show_report(context)
    return run.path


def run_worker(config: ExperimentConfig, progress: Progress | None = None) -> int:
    """Work on the study that `run_experiment` with the same file began, here or elsewhere; return how many trials.

    What `data` and `base` have left in the run's folder is used; what they have not is made. The rest of the folder
    belongs to the process that began the study, and is left alone.

    Raises:
        ConfigError: the experiment has no storage to join.
        StageError: there is no such study in it.
    """
    if config.search.storage is None:
        raise ConfigError("A worker needs the study's storage: --storage postgresql+psycopg://user@host/database.")
    run = RunDir(Path(config.run_dir) if config.run_dir else Path("runs") / config.name)
    context = RunContext(config, run, progress or Silent())
    for plan in ROAD:
        if plan.name in SEARCH_AFTER:
            _prepare_for_work(context, plan)
    return work_on_search(context)


def prepare_data(context: RunContext) -> None:
    """Run the stage `data`, unless it is finished."""
    _pass(context, ROAD[0], None)


def _prepare_for_work(context: RunContext, plan: StagePlan) -> None:
    for attempt in range(_LOCK_ATTEMPTS):
        if context.take(plan.name, plan.settings(context), plan.after):
            return
        with ExitStack() as stack:
            try:
                stack.enter_context(context.run.lock())
            except ConfigError:
                # The process that leads the study is at this very stage; it holds the folder until the road's end.
                if attempt == _LOCK_ATTEMPTS - 1:
                    raise
                time.sleep(1.0)
                continue
            _pass(context, plan, None)
            return


def _road(context: RunContext, only: str | None) -> list[StagePlan]:
    if context.source.hf_dir is not None:
        return list(ROAD)
    if only in WEIGHTS_STAGES:
        raise StageError(
            f"Stage {only!r} needs a model that can be trained; the experiment's model is a GGUF alone. Name its "
            "Hugging Face folder as model.hf_dir."
        )
    context.progress.say("The model is a GGUF alone: its prompt is searched and measured, its weights are not tuned.")
    return [plan for plan in ROAD if plan.name not in WEIGHTS_STAGES]


def _nothing_was_tuned(context: RunContext) -> bool:
    """Say whether the study searched weights, and every training was stopped or broke a constraint."""
    return searches_weights(context) and context.stages["search"].complete and tuned_winner(context) is None


def _pass(context: RunContext, plan: StagePlan, only: str | None) -> None:
    stage = context.open(plan.name, plan.settings(context), plan.after)
    if stage.complete:
        context.progress.stage(plan.name, "kept")
        return
    if only is not None and plan.name != only and plan.name not in RUN_WITHOUT_ASKING:
        raise StageError(
            f"Stage {only!r} needs {plan.name!r}, which has not finished in {context.run.path}. Run `promptopt "
            f"{plan.name}` with the same file first, or `promptopt run` for all stages."
        )
    context.progress.stage(plan.name, "running")
    started = time.monotonic()
    outputs = plan.work(context, stage)
    stage.finish(outputs, seconds=time.monotonic() - started)
    context.progress.stage(plan.name, "done")
