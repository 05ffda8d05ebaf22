"""The first stages: `data` (rows into splits) and `base` (the model as the GGUF that is searched with)."""

from pathlib import Path

from pydantic import JsonValue

from promptopt.config.data import DataConfig, Source
from promptopt.config.load import import_object
from promptopt.data.loaders import load_rows
from promptopt.data.readers import source_files
from promptopt.data.splits import (
    check_leaks,
    describe_leaks,
    fingerprint,
    named_splits,
    near_duplicates_across,
    split_rows,
)
from promptopt.errors import StageError
from promptopt.evaluation.report_data import DataOverview
from promptopt.lm.fingerprint import file_sha256
from promptopt.pipeline.context import RunContext
from promptopt.pipeline.fields import check_fields
from promptopt.pipeline.models import make_gguf
from promptopt.pipeline.training import check_training
from promptopt.records import DataRow
from promptopt.rundir import Stage, hash_inputs, read_jsonl, write_json, write_jsonl
from promptopt.study.task import source_hash


def data_settings(context: RunContext) -> JsonValue:
    """Return what the stage `data` depends on."""
    config = context.config.data
    sources = [config.source] if config.test_source is None else [config.source, config.test_source]
    return {"config": config.model_dump(mode="json"), "content": [_content_hash(source, config) for source in sources]}


def run_data(context: RunContext, stage: Stage) -> dict[str, JsonValue]:
    """Load, split and check the data; write data/{train,val,test}.jsonl and data/overview.json."""
    config = context.config.data
    check_fields(context)
    check_training(context)
    loaded = load_rows(config)
    splits = split_rows(loaded, config)
    check_leaks(splits)
    leaks = near_duplicates_across(splits, config)
    if leaks:
        context.progress.say(describe_leaks(leaks))
    for name, rows in named_splits(splits).items():
        write_jsonl(stage.path / f"{name}.jsonl", rows)
    overview = DataOverview(
        rows={"train": len(splits.train), "val": len(splits.val), "test": len(splits.test)},
        bad_rows=loaded.bad_rows,
        duplicates=loaded.duplicates,
        overlapping=splits.overlapping,
        left_over=splits.left_over,
        near_duplicates=len(leaks),
        near_duplicates_dropped=splits.near_duplicates,
        fingerprints={
            "train": fingerprint(splits.train),
            "val": fingerprint(splits.val),
            "test": fingerprint(splits.test),
        },
    )
    write_json(stage.path / "overview.json", overview)
    return {str(name): rows for name, rows in overview.rows.items()}


def read_split(context: RunContext, name: str) -> list[DataRow]:
    """Return the rows of `train` or `val`. The test split has one reader, the evaluate stage, and this is not it."""
    if name not in ("train", "val"):
        raise StageError(f"Split {name!r} is not for search or training; they see `train` and `val` only.")
    return read_jsonl(context.stages["data"].path / f"{name}.jsonl", DataRow)


def base_settings(context: RunContext) -> JsonValue:
    """Return what the stage `base` depends on."""
    return {"model": dict(context.source.identity()), "quantization": context.config.lm.quantization}


def run_base(context: RunContext, stage: Stage) -> dict[str, JsonValue]:
    """Make the base GGUF from the Hugging Face folder, or take the one the user brought."""
    source = context.source
    if source.gguf is not None or source.hf_dir is None:
        return {"gguf": str(source.gguf)}
    made = make_gguf(source.hf_dir, stage.path, context.config.lm.quantization, "base")
    write_json(stage.path / "gguf.json", made)
    return {"gguf": made.path, "sha256": made.sha256}


def base_gguf(context: RunContext) -> Path:
    """Return the GGUF of the untuned model."""
    return context.source.gguf or context.stages["base"].path / f"base-{context.config.lm.quantization}.gguf"


def _content_hash(source: Source, config: DataConfig) -> str:
    if source.kind == "python":
        return source_hash(import_object(source.factory, what="data factory"))
    files = source_files(source, config.origin)
    return file_sha256(files[0]) if len(files) == 1 else hash_inputs({str(file): file_sha256(file) for file in files})
