"""The sections of the Markdown report, one function each; a section without data is an empty string."""

import json
import math
from pathlib import PurePath
from typing import TypeVar

from promptopt.evaluation.markdown import code, escape, fence, sparkline, table
from promptopt.evaluation.model_table import MeasuredModel, model_rows
from promptopt.evaluation.report_data import DataOverview, ReportData, RunRecord, SearchOverview, TrialLine
from promptopt.records import FinetuneResult, GgufModel, LossPoint, ParityReport

T = TypeVar("T")

_MOST_LOSS_ROWS = 40
_SPARKLINE_WIDTH = 60


def search_section(search: SearchOverview | None) -> str:
    """Return what was searched, and the best trials."""
    if search is None:
        return ""
    full = search.trials - search.raced_out - search.failed
    parts = [
        "## Search",
        f"{search.trials} trials on up to {search.examples} {search.split} examples: {full} ran to the end, "
        f"{search.raced_out} were raced out, {search.failed} failed. {_winners(search)}",
    ]
    if search.constraints:
        limits = ", ".join(f"{code(name)} at most {limit:g}" for name, limit in search.constraints.items())
        parts.append(f"To win, a trial had to keep {limits}; {search.infeasible} did not.")
    if search.space:
        rows = [[code(name), ", ".join(code(value) for value in values)] for name, values in search.space]
        parts.append(table([["parameter", "values searched"], *rows]))
    if search.top:
        parts += ["### Best trials", _trials_table(search.top)]
    if search.front:
        parts += [
            "### Score against serving cost",
            f"Trials that no other beats in both, the cheapest first. Tokens are those that an example does not share: "
            f"its own part of the prompt, and its answer ({search.split} examples).",
            _trials_table(search.front),
        ]
    if search.importances:
        ranked = sorted(search.importances.items(), key=lambda item: (-item[1], item[0]))
        rows = [[code(name), f"{value:.3f}"] for name, value in ranked]
        parts += ["### What mattered", table([["parameter", "importance"], *rows], numbers_from=1)]
    return "\n\n".join(parts)


def _winners(search: SearchOverview) -> str:
    frozen = f"Trial {search.best_trial} won on frozen weights"
    if search.best_tuned_trial is None:
        return f"{frozen}."
    trained = f"{search.tuned} trials had tuned weights, {search.trained} of them trained their own"
    return f"{frozen}, trial {search.best_tuned_trial} on tuned ones ({trained})."


def _trials_table(trials: tuple[TrialLine, ...]) -> str:
    lines = [
        [
            str(trial.number),
            _number(trial.value),
            str(trial.examples),
            escape(trial.state),
            escape(trial.weights),
            _number(trial.serving_tokens, 0),
            escape(trial.description),
        ]
        for trial in trials
    ]
    return table([["trial", "score", "examples", "state", "weights", "tokens", "what was tried"], *lines])


def prompt_section(data: ReportData) -> str:
    """Return the winning prompt in full, and its layout."""
    parts = []
    if data.winning_prompt:
        parts += ["## The winning prompt", "As the model reads it, before its chat template, for one real example."]
        for message in data.winning_prompt:
            parts += [f"**{message.role}**", fence(message.content, "text")]
    if data.winning_layout:
        layout = json.dumps(data.winning_layout, ensure_ascii=False, indent=2)
        parts += ["### Its layout", fence(layout, "json")]
    return "\n\n".join(parts)


def finetune_section(result: FinetuneResult | None) -> str:
    """Return how the weights were trained, with the loss curve."""
    if result is None:
        return ""
    rows = [
        ["base model", code(result.base_model)],
        ["base held as", code(result.base_quantization)],
        ["method", code(result.method or "labels or sft")],
        ["rows (train / validation)", f"{result.train_rows} / {result.val_rows}"],
        ["rows left out as too long", str(result.dropped_rows)],
        ["trainable parameters", f"{result.trainable_parameters:,}"],
        ["completion tokens trained on", f"{result.trained_tokens:,}"],
        ["steps, epochs", f"{result.steps}, {result.epochs:.2f}{' (stopped early)' if result.stopped_early else ''}"],
        ["kept: the best by", f"{result.best_by.replace('_', ' ')}, step {result.best_step}"],
        ["evaluation loss there", f"{result.best_eval_loss:.4f}"],
        *([["task metric there", f"{result.best_metric:.3f}"]] if result.best_metric is not None else []),
        ["time, device", f"{result.wall_s:.0f} s, {escape(result.device)}"],
    ]
    parts = ["## Fine-tuning", table([["", ""], *rows])]
    if result.verdict:
        parts.append(escape(result.verdict))
    if result.stages:
        parts += ["### Stages", "Each went on with the weights of the one before; above is the last.", _stages(result)]
    if result.history:
        parts += ["### Loss", "Nats per completion token.", _loss_curves(result.history), _loss_table(result.history)]
    return "\n\n".join(parts)


def _stages(result: FinetuneResult) -> str:
    lines = []
    for number, stage in enumerate(result.stages, start=1):
        start = next((point.eval_loss for point in stage.history if point.eval_loss is not None), None)
        rows, loss = f"{stage.train_rows} / {stage.val_rows}", f"{_number(start, 4)} -> {stage.best_eval_loss:.4f}"
        lines.append([str(number), stage.method, rows, str(stage.steps), loss, f"{stage.wall_s:.0f}"])
    return table([["", "method", "rows (train / validation)", "steps", "evaluation loss", "seconds"], *lines])


def _loss_curves(history: tuple[LossPoint, ...]) -> str:
    lines = []
    for title, values in (
        ("training", [point.loss for point in history]),
        ("evaluation", [point.eval_loss for point in history]),
        ("metric", [point.metric for point in history]),
    ):
        measured = [value for value in values if value is not None and math.isfinite(value)]
        if measured:
            curve = sparkline(_thin(measured, _SPARKLINE_WIDTH))
            best = f"highest {max(measured):.3f}" if title == "metric" else f"lowest {min(measured):.3f}"
            lines.append(f"{title:<10}  {curve}  {measured[0]:.3f} -> {measured[-1]:.3f}, {best}")
    return fence("\n".join(lines), "text") if lines else ""


def _loss_table(history: tuple[LossPoint, ...]) -> str:
    # Every measured evaluation loss is shown; of the training losses in between, evenly spaced ones.
    train_only = [point for point in history if point.eval_loss is None]
    kept = {id(point) for point in _thin(train_only, max(1, _MOST_LOSS_ROWS - len(history) + len(train_only)))}
    shown = [point for point in history if point.eval_loss is not None or id(point) in kept]
    rows = [
        [
            str(point.step),
            f"{point.epoch:.2f}",
            _number(point.loss, 4),
            _number(point.eval_loss, 4),
            _number(point.metric),
            _rate(point),
        ]
        for point in shown
    ]
    note = f"\n\n{len(shown)} of {len(history)} measurements are shown." if len(shown) < len(history) else ""
    header = ["step", "epoch", "loss", "evaluation loss", "metric", "learning rate"]
    return table([header, *rows], numbers_from=0) + note


def _rate(point: LossPoint) -> str:
    return "" if point.learning_rate is None else f"{point.learning_rate:.2e}"


def export_section(
    ggufs: tuple[GgufModel, ...],
    parity: tuple[ParityReport, ...],
    scores: tuple[MeasuredModel, ...] = (),
    deployed: str = "",
    *,
    sha256_digits: int = 12,
) -> str:
    """Return the GGUF files, what quantization cost, and how far llama.cpp agrees with the HF model."""
    parts = []
    if ggufs:
        rows = [
            [
                code(PurePath(model.path).name),
                model.quantization,
                f"{model.size_bytes / 1e6:.1f} MB",
                code(model.sha256[:sha256_digits]),
            ]
            for model in ggufs
        ]
        parts += ["## GGUF files", table([["file", "quantization", "size", "sha256"], *rows])]
    if scores:
        cells = [[escape(cell) for cell in row] for row in model_rows(scores)]
        parts += [
            "### What each quantization scores",
            table(cells, numbers_from=1),
            f"On {scores[0].summary.n} val examples, which the search has seen too; differences to the first file are "
            f"paired, with 95 % interval. Deployed: {code(deployed)}.",
        ]
    if parity:
        rows = [
            [
                report.quantization,
                f"{report.token_ids_equal} of {report.prompts}",
                f"{report.greedy_equal} of {report.greedy_prompts}" if report.greedy_prompts else "not compared",
                f"{report.mean_agreed_tokens:.1f} of {report.max_new_tokens}" if report.greedy_prompts else "",
            ]
            for report in parity
        ]
        header = ["quantization", "same token ids", "same greedy answer", "tokens until they part (mean)"]
        parts += ["### Parity with the HF model", table([header, *rows])]
    return "\n\n".join(parts)


def data_section(data: DataOverview | None) -> str:
    """Return rows per split, what was left out, and fingerprints."""
    if data is None:
        return ""
    rows = [[split, str(n), code(data.fingerprints.get(split, "")[:16])] for split, n in data.rows.items()]
    left_out = [
        (data.bad_rows, "bad rows"),
        (data.duplicates, "rows with the same inputs as an earlier one"),
        (data.overlapping, "rows that are, or share a group with, a test row"),
        (data.left_over, "rows beyond the sizes asked for"),
        (data.near_duplicates_dropped, "rows of train or val that nearly equal one of a later split"),
    ]
    said = "; ".join(f"{count} {what}" for count, what in left_out if count) or "nothing"
    parts = ["## Data", table([["split", "rows", "fingerprint"], *rows]), f"Left out: {said}."]
    if data.near_duplicates:
        parts.append(
            f"Still in: {data.near_duplicates} rows of train or val that nearly equal one of a later split; scores "
            "on it may be too good."
        )
    return "\n\n".join(parts)


def run_section(run: RunRecord | None) -> str:
    """Return what it takes to run this again."""
    if run is None:
        return ""
    parts = ["## Run record", f"git revision: {code(run.git_revision) or 'unknown (not in a repository)'}"]
    groups: list[tuple[str, dict[str, str]]] = [
        ("Arguments", {name: json.dumps(value, ensure_ascii=False) for name, value in run.arguments.items()}),
        ("Environment", run.environment),
        ("Recipe, chosen where the experiment says nothing", run.recipe),
        ("Seeds", {name: str(seed) for name, seed in run.seeds.items()}),
        ("Versions", run.versions),
        ("File hashes (sha256)", run.file_hashes),
    ]
    for title, values in groups:
        if values:
            rows = [[code(name), code(value)] for name, value in values.items()]
            parts += [f"### {title}", table([["", ""], *rows])]
    return "\n\n".join(parts)


def _number(value: float | None, digits: int = 3) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _thin(values: list[T], most: int) -> list[T]:
    """Return at most `most` evenly spaced values, the first and the last among them."""
    if len(values) <= most:
        return values
    if most == 1:
        return values[-1:]
    return [values[round(index * (len(values) - 1) / (most - 1))] for index in range(most)]
