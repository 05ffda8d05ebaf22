"""`promptopt compare`: the experiment's program on several GGUFs, each with the best prompt that is known for it.

<run>/compare/<model>-<key>.jsonl       records, kept example by example; asked again only where something changed
              <model>-<key>.cost.json   speed and memory
              compare.md, compare.json  the last comparison
"""

from collections.abc import Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from promptopt.config.experiment import ExperimentConfig
from promptopt.errors import ConfigError
from promptopt.evaluation.model_table import MeasuredModel, ModelComparison, render_comparison
from promptopt.lm.fingerprint import file_sha256
from promptopt.lm.gguf_info import read_gguf
from promptopt.pipeline.context import RunContext
from promptopt.pipeline.fields import check_fields
from promptopt.pipeline.judgement import read_test
from promptopt.pipeline.known_prompts import KnownPrompt, known_prompt
from promptopt.pipeline.measuring import finished_records, known_cost, measured_cost, measured_model, measured_records
from promptopt.pipeline.prepare import read_split
from promptopt.pipeline.progress import Progress, Silent
from promptopt.pipeline.run import prepare_data
from promptopt.records import DataRow, ExampleRecord, SplitName
from promptopt.rundir import RunDir, hash_inputs, write_json, write_text
from promptopt.study.task import metric_identity, program_identity

FOLDER = "compare"


def compare_models(
    config: ExperimentConfig,
    models: Sequence[Path],
    split: SplitName = "val",
    limit: int | None = None,
    candidates: Mapping[str, Path] | None = None,
    progress: Progress | None = None,
    *,
    open_test_again: str = "",
) -> Path:
    """Measure `models` on the experiment's program and write the comparison; the same call after a kill goes on.

    Every model runs alone, in a process of its own; differences are to the first one.

    Args:
        split: `val`; `test` is for the last word only, and every reading is noted (docs/decisions/0007).
        limit: rows; None = all.
        candidates: model (file name, with or without .gguf) -> candidate file that goes before what is known.
        open_test_again: why test rows may be read on which something else was measured before.

    Returns:
        The folder of the comparison.

    Raises:
        StageError: the test split was opened for something else before.
        ConfigError: the same file twice, an unknown split, a candidate for no model or for another program.
        ModelError: a file is no GGUF with a chat template; nothing is run then.
    """
    _check(models, split, limit)
    run = RunDir(Path(config.run_dir) if config.run_dir else Path("runs") / config.name)
    context = RunContext(config, run, progress or Silent(), open_test_again)
    with run.lock():
        check_fields(context)
        prepare_data(context)
        prompts = _prompts(context, models, dict(candidates or {}))
        if split == "test":
            pairs = zip(models, prompts, strict=True)
            rows = read_test(context, {"compared": [_key(context, path, prompt) for path, prompt in pairs]})[:limit]
        else:
            rows = read_split(context, split)[:limit]
        folder = run.path / FOLDER
        context.progress.stage("compare", "running")
        measured = _measure_all(context, models, prompts, rows, split, folder)
        compared = ModelComparison(
            experiment=config.name, metric=context.metric.name, split=split, rows=len(rows), date=_now(),
            models=measured,
        )  # fmt: skip
        write_json(folder / "compare.json", compared)
        write_text(folder / "compare.md", render_comparison(compared))
        context.progress.stage("compare", "done")
    return folder


def _check(models: Sequence[Path], split: str, limit: int | None) -> None:
    if split not in ("val", "test"):
        raise ConfigError(f"The split is {split!r}; allowed are 'val' and 'test' (train is what models learn from).")
    if limit is not None and limit < 1:
        raise ConfigError(f"The limit is {limit}; allowed are positive numbers of rows.")
    if not models:
        raise ConfigError("There is no model to compare; name GGUF files after --models.")
    seen: dict[Path, Path] = {}
    for path in models:
        info = read_gguf(path)
        if not info.has_chat_template:
            raise ConfigError(f"{path} has no chat template, so chat prompts cannot be rendered; leave it out.")
        if path.resolve() in seen:
            raise ConfigError(f"{path} and {seen[path.resolve()]} are the same file; name each model once.")
        seen[path.resolve()] = path


def _prompts(context: RunContext, models: Sequence[Path], files: dict[str, Path]) -> list[KnownPrompt]:
    """Return the prompt of each model, all proved to fit the program before anything is run."""
    prompts = []
    for path in models:
        given = files.pop(path.name, None) or files.pop(path.stem, None)
        prompt = known_prompt(context, path, given)
        prompt.candidate.apply(context.program.deepcopy())
        prompts.append(prompt)
    if files:
        raise ConfigError(
            f"There is a candidate for {', '.join(map(repr, files))}, and no such model; the models are "
            f"{', '.join(path.name for path in models)}."
        )
    return prompts


def _measure_all(
    context: RunContext,
    models: Sequence[Path],
    prompts: Sequence[KnownPrompt],
    rows: Sequence[DataRow],
    split: SplitName,
    folder: Path,
) -> tuple[MeasuredModel, ...]:
    titles = _titles(models)
    first: list[ExampleRecord] = []
    measured: list[MeasuredModel] = []
    for number, (path, prompt, title) in enumerate(zip(models, prompts, titles, strict=True)):
        stem = f"{path.stem}-{_key(context, path, prompt)}"
        context.progress.say(f"{title}: {prompt.source}")
        store, kept = folder / f"{stem}.jsonl", folder / f"{stem}.cost.json"
        records, cost = finished_records(rows, store), known_cost(kept)
        if records is None:
            with closing(context.new_lm(path, alone=True)) as lm:
                before = lm.chat.stats()
                done, total = number * len(rows), len(models) * len(rows)
                records = measured_records(context, lm, prompt.candidate, rows, store, title, done, total)
                cost = measured_cost(lm, kept, before)
        first = first or records
        measured.append(measured_model(context, path, title, split, records, first, cost, prompt.source))
    return tuple(measured)


def _key(context: RunContext, path: Path, prompt: KnownPrompt) -> str:
    """Return a name for everything that decides a model's answers and their scores, beside the rows."""
    lm = context.config.lm.model_dump(mode="json", exclude={"quantization", "n_threads", "n_gpu_layers", "parallel"})
    return hash_inputs(
        {
            "model": file_sha256(path),
            "candidate": prompt.candidate.key(),
            "lm": lm,
            "seed": context.config.seed,
            "inputs": list(context.config.data.inputs),
            "metric": metric_identity(context.metric),
            "data": context.stages["data"].inputs,
            **program_identity(context.program),
        }
    )[:12]


def _titles(models: Sequence[Path]) -> list[str]:
    """Return the files' names, with their folders where names are equal."""
    names = [path.name for path in models]
    return [path.name if names.count(path.name) == 1 else str(path) for path in models]


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
