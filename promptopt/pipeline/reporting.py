"""The stage `report`: gathers what the other stages left behind and writes report.md. Measures nothing."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import dspy
import yaml
from pydantic import JsonValue

from promptopt.evaluation.compare import compare_all, road_steps
from promptopt.evaluation.given import GivenInputs
from promptopt.evaluation.model_card import render_model_card
from promptopt.evaluation.report import render_report
from promptopt.evaluation.report_data import (
    DataOverview,
    ModelCardData,
    ReportData,
    RunRecord,
    SearchOverview,
    TrialLine,
)
from promptopt.evaluation.slices import slice_tables
from promptopt.layout.dspy_adapter import signature_spec
from promptopt.layout.render import render_messages
from promptopt.layout.spec import Layout
from promptopt.lm.fingerprint import file_sha256
from promptopt.pipeline.context import RunContext
from promptopt.pipeline.deployables import LORA_FOLDER, LORA_GGUF, MERGED, MODELFILE, carried_program
from promptopt.pipeline.judgement import column_records, road_results
from promptopt.pipeline.judging import stated_calibration
from promptopt.pipeline.openings import read_openings
from promptopt.pipeline.prepare import base_gguf, read_split
from promptopt.pipeline.recipe import recipe_of
from promptopt.pipeline.record import command_line, git_revision, hardware, package_versions
from promptopt.pipeline.searching import best_candidate, tuned_winner
from promptopt.pipeline.weights import ExportedModels
from promptopt.records import ChatMessage, FinetuneResult, ParityReport, TrialRecord
from promptopt.rundir import Stage, read_json, read_jsonl, write_json, write_text
from promptopt.study.costs import pareto_front
from promptopt.study.search import IMPORTANCES
from promptopt.study.space import WEIGHTS

TOP_TRIALS = 10
MODEL_CARD = "model_card.md"


def report_settings(context: RunContext) -> JsonValue:
    """Return what the stage `report` depends on."""
    settings: dict[str, JsonValue] = {
        "experiment": context.config.name,
        "publish": context.config.publish.model_dump(mode="json"),
    }
    stated, _ = stated_calibration(context.config, context.metric)
    # Only where it says something: reports of other metrics keep their keys.
    return {**settings, "judge": stated} if stated else settings


def run_report(context: RunContext, stage: Stage) -> dict[str, JsonValue]:
    """Write report/report.md, report/data.json with everything it says, and the model card of a tuned model."""
    data = report_data(context)
    write_json(stage.path / "data.json", data)
    write_text(stage.path / "report.md", render_report(data))
    if "export" in context.stages:
        write_text(stage.path / MODEL_CARD, render_model_card(data, model_card_data(context)))
    return {"report": "report.md"}


def show_report(context: RunContext) -> None:
    """Put the report of the configuration that just ran at the top of the run, whichever run wrote it."""
    written = context.stages["report"].path / "report.md"
    write_text(context.run.path / "report.md", written.read_text(encoding="utf-8"))


def report_data(context: RunContext) -> ReportData:
    """Return everything the report says about a run whose stages have finished."""
    results = road_results(context)
    road = {summary.name: column_records(context, summary.name) for summary in results.summaries}
    pairs = compare_all(road, context.config.seed, preserving=("tuned_gguf",))
    tuned = "export" in context.stages
    exported = read_json(context.stages["export"].path / "models.json", ExportedModels) if tuned else None
    parity = tuple(report for report in (exported.parity if exported else None, results.parity) if report)
    judge, unmeasured = stated_calibration(context.config, context.metric)
    return ReportData(
        experiment=context.config.name,
        metric=context.metric.name,
        summaries=results.summaries,
        comparisons=road_steps(pairs),
        pairs=pairs,
        slices=slice_tables(results.slices, road, context.config.seed),
        openings=tuple(read_openings(context.run.path)),
        search=_search_overview(context),
        winning_prompt=_winning_prompt(context),
        winning_layout=best_candidate(context).layout.model_dump(mode="json"),
        finetune=read_json(context.stages["finetune"].path / "result.json", FinetuneResult) if tuned else None,
        parity=parity,
        ggufs=exported.ggufs if exported else (),
        quantizations=exported.scores if exported else (),
        deployed=exported.deployed if exported else "",
        data=_data_overview(context),
        run=_run_record(context),
        judge=judge,
        warnings=(*_warnings(parity), *unmeasured),
    )


def model_card_data(context: RunContext) -> ModelCardData:
    """Return what the model card says beside the report."""
    exported = context.stages["export"].path
    models = read_json(exported / "models.json", ExportedModels)
    carried = carried_program(context)
    winner = tuned_winner(context)
    recipe = recipe_of(context) if winner is None else winner.recipe
    publish = context.config.publish
    inputs, outputs = _fields_of(context.program)
    hf_dir = context.source.hf_dir
    return ModelCardData(
        deployed=models.deployed,
        # The name alone: where it lies on this machine is nobody's business.
        base_model="promptopt's starter model"
        if context.config.model.kind == "starter"
        else hf_dir.name
        if hf_dir
        else "",
        base_id=publish.base_model,
        licence=publish.licence or (stated_licence(hf_dir) if hf_dir else None),
        inputs=inputs,
        outputs=outputs,
        needs_program=carried.needs_program,
        demos=sum(len(prompt.demos) for prompt in carried.candidate.predictors.values()),
        recipe=recipe.model_dump(mode="json"),
        files=tuple(name for name in (LORA_GGUF, LORA_FOLDER, MODELFILE, MERGED) if _is_whole(exported / name)),
        left_out=models.left_out,
    )


def stated_licence(hf_dir: Path) -> str | None:
    """Return the licence that the header of a model folder's README.md states; None where it states none."""
    try:
        text = (hf_dir / "README.md").read_text(encoding="utf-8")
        header = yaml.safe_load(text.split("---\n")[1]) if text.startswith("---\n") else None
    except (OSError, UnicodeDecodeError, yaml.YAMLError, IndexError):
        return None
    found = header.get("license") if isinstance(header, dict) else None
    return found if isinstance(found, str) else None


def _is_whole(path: Path) -> bool:
    return path.is_file() or any(path.glob("*.safetensors"))


def _fields_of(program: dspy.Module) -> tuple[dict[str, str], dict[str, str]]:
    """Return name -> type of the fields that go into the first predictor and come out of the last."""
    predictors = program.predictors()
    first, last = signature_spec(predictors[0].signature), signature_spec(predictors[-1].signature)
    return {f.name: f.type_name for f in first.inputs}, {f.name: f.type_name for f in last.outputs}


def _search_overview(context: RunContext) -> SearchOverview:
    trials = read_jsonl(context.stages["search"].path / "trials.jsonl", TrialRecord)
    scored = sorted(
        (trial for trial in trials if trial.value is not None),
        key=lambda trial: (-(trial.value or 0.0), trial.prompt_tokens, trial.number),
    )
    values: dict[str, list[str]] = {}
    for trial in trials:
        for name, value in trial.params.items():
            known = values.setdefault(name, [])
            if str(value) not in known:
                known.append(str(value))
    winner = tuned_winner(context)
    frozen = [trial for trial in scored if trial.state == "complete" and trial.feasible and trial.kind == "frozen"]
    tuned = [trial for trial in trials if trial.kind == "tuned"]
    importances = context.stages["search"].path / IMPORTANCES
    return SearchOverview(
        trials=len(trials),
        raced_out=sum(trial.state == "raced_out" for trial in trials),
        failed=sum(trial.state == "failed" for trial in trials),
        examples=max(trial.examples for trial in trials),
        space=tuple((name, tuple(tried)) for name, tried in values.items()),
        top=tuple(_trial_line(trial) for trial in scored[:TOP_TRIALS]),
        best_trial=frozen[0].number,
        best_tuned_trial=None if winner is None else winner.trial,
        tuned=len(tuned),
        trained=sum(trial.weights_of == trial.number for trial in tuned),
        front=tuple(_trial_line(trial) for trial in pareto_front(trials)),
        constraints=context.config.search.constraints.limits,
        infeasible=sum(not trial.feasible for trial in trials),
        importances=json.loads(importances.read_text(encoding="utf-8")) if importances.exists() else {},
    )


def _trial_line(trial: TrialRecord) -> TrialLine:
    layout = Layout.model_validate(trial.layout).describe() if trial.layout else ""
    hidden = ("layout.", WEIGHTS)
    pools = [f"{name}={_shown(value)}" for name, value in trial.params.items() if not name.startswith(hidden)]
    own = trial.weights_of in (None, trial.number)
    return TrialLine(
        number=trial.number,
        value=trial.value,
        examples=trial.examples,
        description="; ".join([layout, *pools]),
        state=trial.state.replace("_", " "),
        weights=trial.kind if own else f"tuned in trial {trial.weights_of}",
        serving_tokens=trial.serving_tokens,
    )


def _shown(value: JsonValue) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _winning_prompt(context: RunContext) -> tuple[ChatMessage, ...]:
    best = best_candidate(context)
    row = read_split(context, "val")[0]
    program = best.apply(context.program.deepcopy())
    name, inputs = GivenInputs(program).of({field: row.fields[field] for field in context.config.data.inputs})
    spec = signature_spec(dict(program.named_predictors())[name].signature)
    messages = render_messages(best.layout_of(name), spec, best.predictors[name].demos, inputs)
    return tuple(ChatMessage.model_validate(message) for message in messages)


def _data_overview(context: RunContext) -> DataOverview:
    return read_json(context.stages["data"].path / "overview.json", DataOverview)


def _run_record(context: RunContext) -> RunRecord:
    arguments: dict[str, JsonValue] = {"command": " ".join(command_line())}
    hashes = {"base GGUF": file_sha256(base_gguf(context))}
    return RunRecord(
        arguments=arguments,
        versions=package_versions(),
        seeds={"experiment": context.config.seed, "data": context.config.data.seed},
        file_hashes=hashes,
        environment={
            "machine": hardware(),
            "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            **_times(context),
        },
        recipe={} if context.resolved is None else context.resolved.said(),
        git_revision=git_revision(),
    )


def _times(context: RunContext) -> dict[str, str]:
    times = {}
    for name, stage in context.stages.items():
        done = stage.path / "stage.json"
        if done.exists() and (seconds := json.loads(done.read_text(encoding="utf-8")).get("seconds")) is not None:
            times[f"seconds in {name}"] = f"{seconds:.0f}"
    return times


def _warnings(parity: Sequence[ParityReport]) -> tuple[str, ...]:
    warnings = []
    for report in parity:
        if report.greedy_equal < report.greedy_prompts:
            warnings.append(
                f"Greedy answers of the GGUF ({report.quantization}) and of the Hugging Face model are the same for "
                f"{report.greedy_equal} of {report.greedy_prompts} prompts; they agree for "
                f"{report.mean_agreed_tokens:.1f} tokens on average. Token ids agree on all prompts."
            )
    return tuple(warnings)
