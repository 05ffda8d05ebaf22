"""Collects a complete score table: random candidates of an experiment's space, each on every row, without racing."""

import json
from pathlib import Path

import dspy
from engine_bench.report import cpu_model

import promptopt as po
from promptopt.config.experiment import ExperimentConfig, RacingConfig
from promptopt.config.load import load_experiment
from promptopt.data.loaders import load_rows
from promptopt.data.splits import split_rows
from promptopt.metrics.registry import get_metric
from promptopt.pipeline.context import build_program
from promptopt.pipeline.models import starter_gguf
from promptopt.records import DataRow, ExampleRecord
from promptopt.rundir import read_jsonl


def collect(experiment: Path, gguf: Path | None, candidates: int, rows: int, folder: Path, out: Path) -> None:
    """Write the table of `experiment` to `out`: keys and scores, no text. Killed, it goes on from `folder`."""
    config = load_experiment(experiment)
    sizes = config.data.split.model_copy(update={"val": rows})
    splits = split_rows(load_rows(config.data), config.data.model_copy(update={"split": sizes}))
    lm = po.LlamaCpp(
        gguf or starter_gguf(), n_ctx=config.lm.n_ctx, max_tokens=config.lm.max_tokens, batch_invariant=True
    )
    # Every trial is one of the sampler's random ones, so the table holds what a search meets before it models.
    search = config.search.model_copy(
        update={"racing": RacingConfig(enabled=False), "sampler_startup": candidates, "val_rows": rows}
    )
    try:
        result = po.optimize(
            build_program(config.program), lm=lm, metric=get_metric(config.metric), trials=candidates,
            train=_examples(splits.train, config), val=_examples(splits.val, config), config=search,
            seed=config.seed, folder=folder,
        )  # fmt: skip
    finally:
        lm.close()
    scores: dict[str, list[float]] = {}
    for trial in result.trials:
        path = folder / "search" / "evaluations" / f"{trial.candidate_key[:24]}.jsonl"
        if trial.state == "complete" and trial.candidate_key[:24] not in scores:
            # The file is in the order of the rows: every trial was evaluated from the first row on.
            found = [record.score or 0.0 for record in read_jsonl(path, ExampleRecord)]
            scores[trial.candidate_key[:24]] = [round(score, 4) for score in found]
    about = {
        "experiment": config.name, "model": "starter" if gguf is None else "tuned", "metric": config.metric,
        "rows": len(splits.val), "candidates": len(scores), "cpu": cpu_model(),
    }  # fmt: skip
    lines = ",\n".join(f" {json.dumps(key)}: {json.dumps(row)}" for key, row in scores.items())
    out.write_text(f'{{"about": {json.dumps(about)},\n"scores": {{\n{lines}\n}}}}\n', encoding="utf-8")


def _examples(rows: tuple[DataRow, ...], config: ExperimentConfig) -> list[dspy.Example]:
    return [dspy.Example(**row.fields).with_inputs(*config.data.inputs) for row in rows]
