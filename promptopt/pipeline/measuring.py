"""Runs the experiment's program on one model over rows, kept example by example, and says what the model cost."""

import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from promptopt.candidate import Candidate
from promptopt.evaluation.compare import compare, summarise
from promptopt.evaluation.evaluate import Evaluator, iterate_rows
from promptopt.evaluation.model_table import MeasuredModel
from promptopt.evaluation.throughput import Throughput
from promptopt.lm.fingerprint import file_sha256
from promptopt.lm.gguf_info import read_gguf
from promptopt.lm.llama_cpp.facade import LlamaCpp
from promptopt.lm.llama_cpp.requests import EngineStats
from promptopt.pipeline.context import RunContext
from promptopt.records import DataRow, ExampleRecord, Record, SplitName
from promptopt.rundir import read_json, read_jsonl, write_json


class ModelCost(Record):
    """What was measured while a model answered; None where nothing was."""

    tokens_per_s: float | None = None
    peak_memory_bytes: int | None = None


def finished_records(rows: Sequence[DataRow], store: Path) -> list[ExampleRecord] | None:
    """Return the record of every row, if `store` has them all; a model need not be loaded then."""
    known = {record.example_id: record for record in read_jsonl(store, ExampleRecord)}
    found = [known[row.id] for row in rows if row.id in known]
    return found if len(found) == len(rows) else None


def measured_records(
    context: RunContext,
    lm: LlamaCpp,
    candidate: Candidate,
    rows: Sequence[DataRow],
    store: Path,
    title: str,
    before: int,
    total: int,
) -> list[ExampleRecord]:
    """Return the record of every row, from `store` where it is there; `before` of `total` examples were done before."""
    evaluator = Evaluator(context.program, candidate, lm, context.metric, context.config.data.inputs)
    # One per model: each has its own pace.
    throughput = Throughput()
    records: list[ExampleRecord] = []
    with closing(iterate_rows(evaluator, rows, store, stops=(), throughput=throughput)) as running:
        for record in running:
            records.append(record)
            done = before + len(records)
            context.progress.step(done, total, title, throughput.speed(total - done).text)
    return records


def known_cost(kept: Path) -> ModelCost:
    """Return what `measured_cost` kept."""
    return read_json(kept, ModelCost) if kept.exists() else ModelCost()


def measured_cost(lm: LlamaCpp, kept: Path, before: EngineStats) -> ModelCost:
    """Return what `lm` cost since its engine's counters stood at `before`, and keep it in `kept`.

    If it generated nothing since, what was kept there counts.
    """
    now = lm.chat.stats()
    tokens, seconds = now.completion_tokens - before.completion_tokens, now.busy_seconds - before.busy_seconds
    if not tokens or seconds <= 0:
        return known_cost(kept)
    peak = _peak_memory(getattr(lm.chat.engine, "pid", None))
    cost = ModelCost(tokens_per_s=tokens / seconds, peak_memory_bytes=peak)
    write_json(kept, cost)
    return cost


def measured_model(
    context: RunContext,
    gguf: Path,
    title: str,
    split: SplitName,
    records: Sequence[ExampleRecord],
    first: Sequence[ExampleRecord],
    cost: ModelCost,
    prompt: str,
) -> MeasuredModel:
    """Return one line of a table of models, compared with the records of its first line."""
    info = read_gguf(gguf)
    seed = context.config.seed
    return MeasuredModel(
        summary=summarise(title, title, split, records, seed),
        file=str(gguf),
        sha256=file_sha256(gguf),
        quantization=info.quantization,
        size_bytes=info.size_bytes,
        prompt=prompt,
        tokens_per_s=cost.tokens_per_s,
        peak_memory_bytes=cost.peak_memory_bytes,
        difference=None if records is first else compare(first, records, seed),
    )


def _peak_memory(pid: int | None) -> int | None:
    """Return the largest resident size that a process has had, in bytes; None where the system does not say."""
    if pid is None or sys.platform != "linux":
        return None
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), None)
