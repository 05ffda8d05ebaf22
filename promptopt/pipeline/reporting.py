"""The stage `report`: gathers what the other stages left behind and writes report.md. Measures nothing."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime

from pydantic import JsonValue

from promptopt.evaluation.compare import compare_road
from promptopt.evaluation.report import render_report
from promptopt.evaluation.report_data import Comparison, DataOverview, ReportData, RunRecord, SearchOverview, TrialLine
from promptopt.layout.dspy_adapter import signature_spec
from promptopt.layout.render import render_messages
from promptopt.layout.spec import Layout
from promptopt.lm.fingerprint import file_sha256
from promptopt.pipeline.context import RunContext
from promptopt.pipeline.judgement import column_records, road_results
from promptopt.pipeline.prepare import base_gguf, read_split
from promptopt.pipeline.record import command_line, git_revision, hardware, package_versions
from promptopt.pipeline.searching import best_candidate, tuned_winner
from promptopt.pipeline.weights import ExportedModels
from promptopt.records import ChatMessage, EvaluationSummary, FinetuneResult, ParityReport, TrialRecord
from promptopt.rundir import Stage, read_json, read_jsonl, write_json, write_text
from promptopt.study.costs import pareto_front
from promptopt.study.search import IMPORTANCES
from promptopt.study.space import WEIGHTS

TOP_TRIALS = 10


def report_settings(context: RunContext) -> JsonValue:
    """Return what the stage `report` depends on."""
    return {"experiment": context.config.name}


def run_report(context: RunContext, stage: Stage) -> dict[str, JsonValue]:
    """Write report/report.md, and report/data.json with everything it says."""
    data = report_data(context)
    write_json(stage.path / "data.json", data)
    write_text(stage.path / "report.md", render_report(data))
    return {"report": "report.md"}


def show_report(context: RunContext) -> None:
    """Put the report of the configuration that just ran at the top of the run, whichever run wrote it."""
    written = context.stages["report"].path / "report.md"
    write_text(context.run.path / "report.md", written.read_text(encoding="utf-8"))


def report_data(context: RunContext) -> ReportData:
    """Return everything the report says about a run whose stages have finished."""
    results = road_results(context)
    tuned = "export" in context.stages
    exported = read_json(context.stages["export"].path / "models.json", ExportedModels) if tuned else None
    parity = tuple(report for report in (exported.parity if exported else None, results.parity) if report)
    return ReportData(
        experiment=context.config.name,
        metric=context.metric.name,
        summaries=results.summaries,
        comparisons=_comparisons(context, results.summaries),
        search=_search_overview(context),
        winning_prompt=_winning_prompt(context),
        winning_layout=best_candidate(context).layout.model_dump(mode="json"),
        finetune=read_json(context.stages["finetune"].path / "result.json", FinetuneResult) if tuned else None,
        parity=parity,
        ggufs=exported.ggufs if exported else (),
        data=_data_overview(context),
        run=_run_record(context),
        warnings=_warnings(parity),
    )


def _comparisons(context: RunContext, summaries: Sequence[EvaluationSummary]) -> tuple[Comparison, ...]:
    road = {summary.name: column_records(context, summary.name) for summary in summaries}
    return compare_road(road, context.config.seed, preserving=("tuned_gguf",))


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
    name, predictor = best.apply(context.program.deepcopy()).named_predictors()[0]
    spec = signature_spec(predictor.signature)
    inputs = {field: row.fields[field] for field in predictor.signature.input_fields if field in row.fields}
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
